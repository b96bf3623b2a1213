"""A reader that stops reading: bounded memory, no harm to others, then the newest."""

from __future__ import annotations

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket
from worldline.core.live.client import Keys, Ping
from worldline.core.live.server import Failure, Frame, Opened, Received
from worldline.server.live.following import MOST_BYTES, MOST_PICTURES
from worldline.server.live.viewer import MOST_MESSAGES, PATIENCE

pytestmark = pytest.mark.anyio

MINUTES = 10
CHUNK_S = 0.75


async def minutes_go_by(rig: Rig, stalled: LiveSocket, other: LiveSocket) -> int:
    """Ten minutes of chunks, pings from the one who does not read; the largest number kept."""
    mine, theirs = rig.worlds.made
    viewer = next(iter(rig.house.rooms[0].guests.values())).viewer
    most = 0
    for number in range(round(MINUTES * 60 / CHUNK_S)):
        stalled.send(Ping(at_ms=number))
        other.send(Ping(at_ms=number))
        await mine.chunk()
        await theirs.chunk()
        await rig.clock.advance(CHUNK_S)
        assert (await other.until(Frame)).number == number  # not one is lost or late
        assert viewer.following is not None
        most = max(most, viewer.waiting + len(viewer.following))
        assert viewer.following.queued_bytes <= MOST_BYTES
    return most


async def test_ten_minutes_without_reading(start: Start) -> None:
    rig = await start(idle_lease_s=0, max_lifetime_s=0)
    stalled, other = rig.connect(), rig.connect()
    await stalled.walk(seed=1)
    await other.walk(seed=2)
    stalled.stall()
    most = await minutes_go_by(rig, stalled, other)
    assert most <= PATIENCE + MOST_PICTURES
    world = rig.worlds.made[0]
    stalled.flow()
    await settle()
    await world.chunk()
    newest = world.frames - 1
    seen = await stalled.until(Frame)
    while seen.number < newest - 1:
        seen = await stalled.until(Frame)
    frames = [m.number for m in stalled.seen if isinstance(m, Frame)]
    assert len([number for number in frames if number < newest - 1]) <= 2  # was being written
    stalled.send(Keys(id=1, held=("w",)))
    await stalled.until(Received)


async def test_a_reader_whose_answers_pile_up_is_given_up_and_its_world_waits(rig: Rig) -> None:
    """Receipts are never dropped; so who asks for thousands and reads none is let go."""
    socket = rig.connect()
    seat = await socket.walk()
    socket.send(Keys(id=1, held=("w",)))
    await socket.until(Received)
    socket.stall()
    for number in range(2, MOST_MESSAGES + 200):
        socket.send(Keys(id=number, held=("w",)))
        if number % 200 == 0:
            await settle()
            await rig.clock.advance(1)  # messages of one socket come at a limited rate
    for _ in range(60):
        if socket.task.done():
            break
        await rig.clock.advance(0.5)
        await settle()
    socket.flow()
    await socket.ended()
    assert rig.worlds.last.held == ()
    back = rig.connect()
    await back.rejoin(seat.token)
    assert (await back.until(Opened)).controls
    assert not [m for m in back.seen if isinstance(m, Failure)]
