"""What is refused leaves nothing behind: no old pictures, no old deadline, no second receipt."""

from __future__ import annotations

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket, wish
from worldline.core.errors import ConfigError
from worldline.core.live.client import Record
from worldline.core.live.server import Failure, Frame, Notice, Opened, StateChange
from worldline.server.live.recording import Recorder

pytestmark = pytest.mark.anyio


async def refused(socket: LiveSocket) -> Failure:
    """The next error; what comes before it is skipped."""
    while not isinstance(message := await socket.next(), Failure):
        pass
    return message


async def test_a_world_that_was_refused_shows_and_says_nothing_while_it_closes(rig: Rig) -> None:
    rig.worlds.hold_closing = True
    rig.worlds.fail_open = ConfigError("no such window")
    socket = rig.connect()
    await socket.enter()
    assert (await refused(socket)).code == "invalid_config"
    await settle()
    rig.worlds.hold_closing = False
    socket.send(wish())
    await socket.until(Opened)
    old, new = rig.worlds.made
    assert (old.state, old.closed_for) == ("closed", None), "the engine has not let go yet"
    assert old.audience.viewers == ()
    old.may_close.set()
    while len(rig.house.rooms) > 1:
        await settle()
    await new.chunk()
    await socket.until(Frame)
    assert not any(isinstance(said, StateChange) and said.state == "closed" for said in socket.seen)


async def test_who_is_sent_back_has_the_whole_time_again(start: Start) -> None:
    rig = await start(heartbeat_s=0)
    rig.worlds.hold_opening = True
    rig.worlds.fail_open = ConfigError("no such window")
    socket = rig.connect()
    await socket.enter()
    while not rig.worlds.made:
        await settle()
    await rig.clock.advance(29.0)
    rig.worlds.last.gate.set()
    await refused(socket)
    await settle()
    await rig.clock.advance(14.9)
    assert socket.silent
    await rig.clock.advance(0.2)
    notice = await socket.until(Notice)
    assert (notice.code, notice.in_ms) == ("init_timeout", 15_000)
    await rig.clock.advance(15.0)
    assert (await socket.closed())[1] == 4408


async def test_a_recording_that_is_refused_was_never_taken(start: Start) -> None:
    rig = await start(max_recordings_bytes=0)
    socket = rig.connect()
    await socket.walk()
    (room,) = rig.house.rooms
    assert room.broadcast is not None
    room.recorder = Recorder(room.broadcast, rig.services.recordings, rig.clock)
    socket.send(Record(id=5, on=True))
    assert (await refused(socket)).id == 5
    assert rig.worlds.last.inputs == []
