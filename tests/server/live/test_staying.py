"""Leases, lost connections, tokens: a world is there for its visitor, and for nobody too long."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket, wish
from worldline.core.errors import GenerationError
from worldline.core.live.client import (
    Keys,
    Leave,
    Pause,
    Ping,
    Playhead,
    Rejoin,
    Reset,
    Resume,
    Script,
)
from worldline.core.live.common import Action
from worldline.core.live.server import (
    Bye,
    Failure,
    Frame,
    Notice,
    Opened,
    Pong,
    Queued,
    Received,
    Seat,
)

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


async def test_leaving_ends_the_world_and_the_seat_is_free_after_the_engine_let_go(
    start: Start,
) -> None:
    rig = await start(seats=1)
    rig.worlds.hold_closing = True
    socket, second = rig.connect(), rig.connect()
    await socket.walk()
    await second.queue()
    socket.send(Leave())
    bye, code = await socket.closed()
    assert (bye.code, code) == ("left", 4001)
    assert rig.services.seats.taken == 1
    rig.worlds.hold_closing = False
    rig.worlds.made[0].may_close.set()
    assert isinstance(await second.next(), Seat)


async def test_a_complete_world_ends_after_its_last_picture(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    await rig.worlds.last.chunk()
    rig.worlds.last.complete.set_result(None)
    await socket.until(Frame)
    bye, code = await socket.closed()
    assert (bye.code, code) == ("complete", 4000)
    await rig.empty()


async def test_an_engine_error_ends_the_world_and_is_told(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    rig.worlds.last.complete.set_exception(GenerationError("out of luck"))
    error, code = await socket.closed()
    assert (error.code, error.fatal, code) == ("generation_error", True, 4500)
    await rig.empty()


async def test_an_error_of_ours_is_told_by_its_class_only_once(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    rig.worlds.last.complete.set_exception(ZeroDivisionError("in the loop"))
    error, code = await socket.closed()
    assert (error.code, code) == ("error", 4500)
    assert error.message == "ZeroDivisionError: in the loop"


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


async def test_draining_is_announced_and_takes_nobody_in(start: Start) -> None:
    rig = await start(seats=1, drain_s=20.0)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await third.hello()
    draining = asyncio.create_task(rig.house.drain())
    notice = await first.until(Notice)
    assert (notice.code, notice.in_ms) == ("draining", 20_000)
    error, code = await second.closed()
    assert (error.code, error.retryable, code) == ("draining", True, 4503)
    assert error.retry_after_ms > 0
    third.send(wish())
    assert (await third.closed())[0].code == "draining"
    await settle()
    await rig.clock.advance(19.9)
    assert rig.worlds.last.state == "live"
    await rig.clock.advance(0.2)
    assert rig.worlds.last.state == "draining"
    rig.worlds.last.complete.set_result(None)
    bye, code = await first.closed()
    assert (bye.code, code) == ("draining", 4503)
    await draining


async def test_draining_ends_when_everybody_has_left(rig: Rig) -> None:
    socket = rig.connect()
    await socket.walk()
    draining = asyncio.create_task(rig.house.drain())
    await socket.until(Notice)
    socket.send(Leave())
    await draining
    assert rig.clock.sleeping == [] or max(rig.clock.sleeping) < 20


async def test_closing_tells_everybody(start: Start) -> None:
    rig = await start(seats=1)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await third.hello()
    closing = asyncio.create_task(rig.house.close())
    assert await first.closed() == (Bye(code="stopped", message="the server has stopped"), 4503)
    assert (await second.closed())[1] == 4503
    assert (await third.closed())[1] == 4503
    await closing
    await rig.empty()


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


async def waiting_in_line(start: Start, **settings: object) -> tuple[Rig, LiveSocket, LiveSocket]:
    """One seat that may be lent, its holder, and somebody who waits."""
    rig = await start(seats=1, lend_seats=1, heartbeat_s=0, **settings)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    return rig, first, second


async def test_a_paused_world_lends_its_seat_and_comes_back_first(start: Start) -> None:
    rig, first, second = await waiting_in_line(start, max_lifetime_s=0)
    third = rig.connect()
    await third.queue()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(11.9)
    assert (len(rig.worlds.made), rig.worlds.made[0].state) == (1, "parked")
    await rig.clock.advance(0.2)
    await second.until(Opened)
    first.send(Resume(id=2))
    assert (await first.until(Queued)).position == 1
    await first.until(Received)
    assert (await third.until(Queued, position=2)).ahead == 1
    assert [world.state for world in rig.worlds.made] == ["parked", "live"]
    second.send(Keys(id=1, held=("w",)))
    await second.until(Received)
    await rig.clock.advance(100)  # nobody is idle who waits in line
    second.send(Leave())
    await second.closed()
    while rig.worlds.made[0].state != "live":
        await settle()
    assert rig.services.seats.taken == 1
    first.send(Leave())
    await third.until(Opened)


async def test_a_lost_world_lends_its_seat_and_is_still_there(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    token = first.seen[1].token
    await first.leave()
    await rig.clock.advance(12.1)
    await second.until(Opened)
    back = rig.connect()
    await back.rejoin(token)
    assert (await back.until(Queued)).position == 1
    assert (await back.until(Opened)).state == "parked"
    second.send(Leave())
    await second.closed()
    while rig.worlds.made[0].state != "live":
        await settle()


async def test_a_world_that_lent_its_seat_ends_without_it(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    await first.leave()
    await rig.clock.advance(12.1)
    await second.until(Opened)
    await rig.clock.advance(48)
    second.send(Keys(id=1, held=("w",)))
    await second.until(Received)
    assert rig.worlds.made[0].closed_for == "holder_gone"
    assert rig.services.seats.taken == 1
    second.send(Leave())
    await second.closed()
    await rig.empty()


async def test_a_seat_is_not_lent_without_being_allowed(start: Start) -> None:
    rig = await start(seats=1, heartbeat_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(30)
    first.send(Resume(id=2))
    await first.until(Received)
    assert [world.state for world in rig.worlds.made] == ["live"]


async def test_who_comes_later_finds_a_seat_that_can_be_lent(start: Start) -> None:
    rig = await start(seats=1, lend_seats=1, heartbeat_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(20)
    await second.walk()
    assert [world.state for world in rig.worlds.made] == ["parked", "live"]
