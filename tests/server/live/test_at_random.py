"""Lives and queues at random: the same world, no key stuck, every seat given once."""

from __future__ import annotations

import random

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket, wish
from worldline.core.live import ClientMessage
from worldline.core.live.client import (
    AskControl,
    GiveControl,
    Keys,
    Leave,
    Pause,
    Ping,
    Rejoin,
    Resume,
    Settings,
    Watch,
)
from worldline.core.live.server import (
    Opened,
    Queued,
    Seat,
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


class Crowd:
    """Some people who do anything at any time, and what must hold whatever they do."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.dice = random.Random(seed)
        self.sockets: list[LiveSocket] = []
        self.count = 0

    async def act(self) -> None:
        """One of them does something, or time goes by."""
        what = self.dice.random()
        if what < 0.25 or not self.sockets:
            await self.come()
        elif what < 0.4:
            socket = self.sockets.pop(self.dice.randrange(len(self.sockets)))
            if self.dice.random() < 0.4:
                socket.send(Leave())
            socket.drop()
            await socket.ended()
        elif what < 0.9:
            self.speak(self.dice.choice(self.sockets))
        else:
            await self.rig.clock.advance(self.dice.choice([0.5, 3.0, 13.0]))
        await settle(self.dice.randrange(30))
        for world in self.rig.worlds.made:
            if world.state == "live" and self.dice.random() < 0.2:
                await world.chunk()

    async def come(self) -> None:
        """Somebody new, or somebody who was here."""
        socket = self.rig.connect()
        await socket.hello()
        token, world = self.known()
        seed = self.dice.randrange(3)
        start: list[ClientMessage] = [wish(seed=seed), wish(seed=seed), Watch(world=world)]
        socket.send(self.dice.choice([*start, Rejoin(token=token)]))
        self.sockets.append(socket)

    def known(self) -> tuple[str, str]:
        """A token and the name of a world that somebody was given."""
        seats = [m for s in self.rig.sockets for m in s.seen if isinstance(m, Seat)]
        tokens = [seat.token for seat in seats if seat.token]
        return (
            self.dice.choice(tokens or [""]),
            self.dice.choice([seat.world for seat in seats] or [""]),
        )

    def speak(self, socket: LiveSocket) -> None:
        """Anything, by anybody."""
        self.count += 1
        rooms = self.rig.house.rooms
        viewers = [name for room in rooms for name in room.guests] or ["nobody"]
        say: list[ClientMessage] = [
            Keys(id=self.count, held=("w",)),
            Keys(id=self.count, held=()),
            Pause(id=self.count),
            Resume(id=self.count),
            AskControl(id=self.count),
            GiveControl(id=self.count, viewer=self.dice.choice(viewers)),
            Settings(id=self.count, format="raw"),
            Ping(at_ms=self.count),
        ]
        socket.send(self.dice.choice(say))
        while not socket.silent and not socket.task.done():
            socket.skim()

    def check(self) -> None:
        """What holds at any time."""
        house, services = self.rig.house, self.rig.services
        seated = [room for room in house.rooms if room.seated.is_set()]
        assert services.seats.taken <= services.seats.count
        assert services.seats.taken >= len(seated) - self.rig.lent
        for room in house.rooms:
            if room.over.done():
                continue
            holders = [guest.id for guest in room.guests.values() if guest.viewer.holder]
            assert holders == ([room.holder] if room.holder else [])
            assert room.holder is None or room.holder in room.guests
            assert (room.tenancy.gone is None) == (room.holder is not None)
            if room.holder is None and room.world is not None:
                assert room.world.held == ()  # pyright: ignore


@pytest.mark.parametrize("seed", range(8))
async def test_a_crowd_that_does_anything(start: Start, seed: int) -> None:
    rig = await start(seats=2, lend_seats=1, worlds_per_client=0, heartbeat_s=0, init_attempts=99)
    crowd = Crowd(rig, seed)
    for _ in range(150):
        await crowd.act()
        crowd.check()
    for socket in rig.sockets:
        if not socket.task.done():
            await socket.leave()
    for _ in range(4):
        await settle()
        await rig.clock.advance(61)
    await rig.empty()
    assert rig.house.guests == 0
