"""Leases, lost connections, tokens: a world is there for its visitor, and for nobody too long."""

from __future__ import annotations

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket
from worldline.core.live.client import (
    Keys,
    Pause,
    Ping,
    Playhead,
    Rejoin,
    Reset,
    Resume,
    Script,
)
from worldline.core.live.server import (
    Failure,
    Frame,
    Notice,
    Opened,
    Pong,
    Received,
)
from worldline.core.live.shared import Action

pytestmark = pytest.mark.anyio


async def heard(socket: LiveSocket) -> None:
    """Messages are dealt with in order: once this is answered, all before it were."""
    socket.send(Ping(at_ms=1))
    await socket.until(Pong)


async def test_an_input_is_received_and_the_world_has_it(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    socket.send(Keys(id=3, held=("w", "l")))
    assert (await socket.until(Received)).id == 3
    await rig.worlds.last.chunk()
    assert (await socket.until(Frame)).input == 3
    assert rig.worlds.last.walked == [("w", "l")]


async def test_what_the_world_refuses_carries_the_id_and_changes_nothing(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    socket.send(Reset(id=9, seed=13))
    error = await socket.next()
    while not isinstance(error, Failure):
        error = await socket.next()
    assert (error.code, error.id, error.fatal) == ("invalid_control", 9, False)
    await heard(socket)


async def test_a_dropped_connection_keeps_its_world_and_the_token_opens_it(rig: Rig) -> None:
    first = rig.connect()
    seat = await first.walk()
    world = rig.worlds.last
    first.send(Keys(id=1, held=("w",)))
    await first.until(Received)
    await world.chunk()
    await first.leave()
    assert world.held == ()  # nothing is stuck
    assert world.state == "paused"
    await rig.clock.advance(59)
    second = rig.connect()
    again = await second.rejoin(seat.token)
    assert (again.world, again.token) == (seat.world, seat.token)
    opened = await second.until(Opened)
    assert (opened.first_frame, opened.controls) == (1, True)
    assert world.state == "live"
    second.send(Keys(id=1, held=("a",)))
    await second.until(Received)
    await world.chunk()
    assert (await second.until(Frame, number=1)).chunk == 1
    assert world.walked == [("w",), ("a",)]
    assert len(rig.worlds.made) == 1


async def test_a_world_nobody_comes_back_to_ends_after_the_grace_time(rig: Rig) -> None:
    socket = rig.connect()
    seat = await socket.walk()
    await socket.leave()
    await rig.clock.advance(59.9)
    assert len(rig.house.rooms) == 1
    await rig.clock.advance(0.2)
    await rig.empty()
    assert rig.worlds.last.closed_for == "holder_gone"
    late = rig.connect()
    await late.hello()
    late.send(Rejoin(token=seat.token or ""))
    error = await late.next()
    assert (error.code, error.fatal) == ("unknown_world", False)


async def test_a_refreshed_page_takes_over_from_the_connection_that_hangs(rig: Rig) -> None:
    old, new = rig.connect(), rig.connect()
    seat = await old.walk()
    old.send(Keys(id=1, held=("w",)))
    await old.until(Received)
    await new.rejoin(seat.token)
    assert (await new.until(Opened)).controls
    bye, code = await old.closed()
    assert (bye.code, code) == ("taken_over", 4409)
    assert rig.worlds.last.held == ()
    assert rig.worlds.last.state == "live"
    new.send(Keys(id=1, held=("d",)))
    await new.until(Received)


async def test_rejoining_while_the_world_opens(rig: Rig) -> None:
    rig.worlds.hold_opening = True
    first, second = rig.connect(), rig.connect()
    seat = await first.enter()
    while not rig.worlds.made:
        await settle()
    await first.leave()
    await second.rejoin(seat.token)
    rig.worlds.last.gate.set()
    assert (await second.until(Opened)).controls
    assert rig.worlds.last.state == "live"


async def test_a_world_that_opens_for_nobody_waits(rig: Rig) -> None:
    rig.worlds.hold_opening = True
    first, second = rig.connect(), rig.connect()
    seat = await first.enter()
    while not rig.worlds.made:
        await settle()
    await first.leave()
    rig.worlds.last.gate.set()
    await settle()
    assert rig.worlds.last.state == "paused"
    await second.rejoin(seat.token)
    await second.until(Opened)
    assert rig.worlds.last.state == "live"


async def test_a_pause_survives_a_lost_connection(rig: Rig) -> None:
    first, second = rig.connect(), rig.connect()
    seat = await first.walk()
    first.send(Pause(id=1))
    await first.until(Received)
    await first.leave()
    await second.rejoin(seat.token)
    assert (await second.until(Opened)).state == "paused"
    second.send(Resume(id=1))
    await second.until(Received)
    assert rig.worlds.last.state == "live"


async def test_a_world_that_waits_is_parked_and_comes_back(rig: Rig) -> None:
    first, second = rig.connect(), rig.connect()
    seat = await first.walk()
    await first.leave()
    await rig.clock.advance(9.9)
    assert rig.worlds.last.state == "paused"
    await rig.clock.advance(0.2)
    assert rig.worlds.last.state == "parked"
    await second.rejoin(seat.token)
    await second.until(Opened)
    assert rig.worlds.last.state == "live"
    second.send(Pause(id=1))
    await second.until(Received)
    await settle()  # the keeper of the leases has heard of it too
    await rig.clock.advance(10.1)
    assert rig.worlds.last.state == "parked"
    second.send(Resume(id=2))
    await second.until(Received)
    assert rig.worlds.last.state == "live"


async def test_idleness_is_announced_and_an_input_ends_it(start: Start) -> None:
    rig = await start(heartbeat_s=0)
    socket = rig.connect()
    await socket.walk()
    await rig.clock.advance(45.1)
    notice = await socket.until(Notice)
    assert (notice.code, notice.in_ms) == ("idle", 15_000)
    socket.send(Keys(id=1, held=()))
    await socket.until(Received)
    await rig.clock.advance(44)
    assert len(rig.house.rooms) == 1
    await rig.clock.advance(2)
    assert (await socket.until(Notice)).code == "idle"
    await rig.clock.advance(15)
    bye, code = await socket.closed()
    assert (bye.code, code) == ("idle", 4410)
    await rig.empty()


async def test_who_waits_for_a_worker_is_not_idle(start: Start) -> None:
    rig = await start(idle_lease_s=60.0, heartbeat_s=0, max_lifetime_s=0)
    socket = rig.connect()
    await socket.walk()
    rig.worlds.last.recovering = True
    await rig.clock.advance(200)
    rig.worlds.last.recovering = False
    await heard(socket)
    assert not any(isinstance(message, Notice) for message in socket.seen)
    await rig.clock.advance(61)
    assert (await socket.until(Notice)).code == "idle"
    assert (await socket.closed())[0].code == "idle"


async def test_who_holds_a_key_or_plays_a_script_is_not_idle(start: Start) -> None:
    rig = await start(heartbeat_s=0)
    socket = rig.connect()
    await socket.walk()
    socket.send(Keys(id=1, held=("w",)))
    await socket.until(Received)
    await rig.clock.advance(300)
    assert len(rig.house.rooms) == 1
    ahead: tuple[Action, ...] = ("w",)
    socket.send(Script(id=2, frames=(ahead,) * 400))  # 100 s at 4 latent frames a second
    await socket.until(Received)
    await rig.clock.advance(144)
    assert not [m for m in socket.seen if isinstance(m, Notice)]
    await rig.clock.advance(2)
    assert (await socket.until(Notice)).code == "idle"
    await rig.clock.advance(15)
    assert (await socket.closed())[0].code == "idle"


async def test_reports_of_the_player_are_no_input(start: Start) -> None:
    rig = await start(heartbeat_s=0)
    socket = rig.connect()
    await socket.walk()
    for _ in range(5):
        await rig.clock.advance(10)
        socket.send(Playhead(frame=0, lead_ms=1, at_ms=1))
        await heard(socket)
    await rig.clock.advance(11)
    assert (await socket.closed())[0].code == "idle"


async def test_a_lifetime_is_announced_and_ends(start: Start) -> None:
    rig = await start(max_lifetime_s=100.0, heartbeat_s=0, idle_lease_s=0)
    socket = rig.connect()
    await socket.walk()
    await rig.clock.advance(85.1)
    notice = await socket.until(Notice)
    assert (notice.code, notice.in_ms) == ("lifetime", 15_000)
    await rig.clock.advance(15)
    bye, code = await socket.closed()
    assert (bye.code, code) == ("lifetime", 4410)


async def test_the_lifetime_begins_when_the_world_is_open_not_in_the_queue(start: Start) -> None:
    rig = await start(seats=1, max_lifetime_s=100.0, heartbeat_s=0, idle_lease_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await rig.clock.advance(100.1)
    await first.closed()
    await second.until(Opened)
    await rig.clock.advance(80)
    assert len(rig.house.rooms) == 1
    await rig.clock.advance(21)
    assert (await second.closed())[0].code == "lifetime"


async def test_a_live_world_is_never_ended_for_those_who_wait(start: Start) -> None:
    rig = await start(seats=1, heartbeat_s=0, idle_lease_s=0, max_lifetime_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await rig.clock.advance(100_000)
    assert rig.worlds.last.state == "live"
    assert len(rig.worlds.made) == 1
