"""Lives and queues at random: the same world, no key stuck, every seat given once."""

from __future__ import annotations

import random

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket, wish
from worldline.core.live.client import (
    Keys,
    Leave,
    Pause,
    Resume,
)
from worldline.core.live.server import (
    Opened,
    Queued,
)

pytestmark = pytest.mark.anyio


async def test_a_hundred_connections_killed_at_random_points(start: Start) -> None:
    """The world is still there each time, from the same place, and no key is stuck."""
    rig = await start(seats=1)
    dice = random.Random(5)
    socket = rig.connect()
    token = (await socket.walk()).token
    world = rig.worlds.last
    for life in range(100):
        await _walk_at_random(rig, socket, dice)
        if dice.random() < 0.5:
            socket.drop()
            await settle(dice.randrange(40))
        old, socket = socket, rig.connect()
        await socket.rejoin(token)
        opened = await socket.until(Opened)
        assert opened.controls, life
        assert opened.first_frame == world.frames
        assert world.held == (), life
        await old.ended() if old.task.done() or old._gone else await old.closed()
        if world.state == "parked":
            raise AssertionError("nothing was waited for")
    assert rig.worlds.made == [world]
    assert world.state in ("live", "paused")


async def _walk_at_random(rig: Rig, socket: LiveSocket, dice: random.Random) -> None:
    """Some inputs and some chunks, in no order, with threads in between."""
    world = rig.worlds.last
    for number in range(1, dice.randrange(2, 8)):
        what = dice.random()
        if what < 0.6:
            socket.send(Keys(id=number, held=tuple(dice.sample("wasdijkl", dice.randrange(4)))))  # pyright: ignore
        elif what < 0.7:
            socket.send(Pause(id=number))
            socket.send(Resume(id=number))
        await settle(dice.randrange(20))
        if dice.random() < 0.4 and world.state == "live":
            await world.chunk()


async def test_a_queue_that_moves_while_people_leave_gives_every_seat_once(start: Start) -> None:
    rig = await start(seats=2, worlds_per_client=0)
    dice = random.Random(3)
    sockets: list[LiveSocket] = []
    for _ in range(60):
        if len(sockets) < 6 or dice.random() < 0.5:
            socket = rig.connect()
            await socket.hello()
            socket.send(wish())
            sockets.append(socket)
        else:
            socket = sockets.pop(dice.randrange(len(sockets)))
            if dice.random() < 0.5:
                socket.send(Leave())
            socket.drop()
            await socket.ended()
        await settle(dice.randrange(30))
        assert rig.services.seats.taken <= 2
    await rig.clock.advance(61)
    await settle()
    for socket in sockets:
        await socket.leave()
    await settle()
    await rig.clock.advance(61)
    await rig.empty()
    assert not any(isinstance(m, Queued) and m.position < 1 for s in sockets for m in s.seen)
