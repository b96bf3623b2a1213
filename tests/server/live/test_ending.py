"""How worlds end: left, complete, failed, drained, stopped; and what everybody is told."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import wish
from worldline.core.errors import GenerationError
from worldline.core.live.client import (
    Leave,
)
from worldline.core.live.server import (
    Bye,
    Frame,
    Notice,
    Seat,
)
from worldline.server.live import host

pytestmark = pytest.mark.anyio


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


async def test_a_world_whose_leases_nobody_keeps_is_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in the leases")

    monkeypatch.setattr(host, "agenda", broken)
    socket = rig.connect()
    await socket.enter()
    error, code = await socket.closed()
    assert (error.code, error.message, code) == ("error", "ZeroDivisionError: in the leases", 4500)
    await rig.empty()


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


async def test_what_is_said_after_leaving_is_not_heard(rig: Rig) -> None:
    socket = rig.connect()
    await socket.hello()
    socket.send(Leave())
    socket.send(wish())
    assert (await socket.closed())[1] == 4001
    await settle()
    assert rig.house.rooms == ()
