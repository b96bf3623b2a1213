"""Who gets a seat, when, and what those hear who do not."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import LIMIT_S, FakeHandle, settle
from tests.server.conftest import Rig, Start
from tests.server.sockets import Socket, init, keys
from worldline.core.errors import CapacityError, ConfigError, GenerationError
from worldline.server.seats import POLL_S

pytestmark = pytest.mark.anyio


async def begin(rig: Rig) -> Socket:
    """A socket whose session is open; its chunk 0 is being made, or waits for the device."""
    opened = len(rig.handle.opened)
    socket = await rig.connect()
    socket.send(init())
    async with asyncio.timeout(LIMIT_S):
        while len(rig.handle.opened) == opened:
            await asyncio.sleep(0.001)
    await settle()
    return socket


async def test_two_seats_hold_two_sessions_and_the_third_is_refused(rig: Rig) -> None:
    rig.handle.hold()
    await begin(rig)
    await begin(rig)
    third = await rig.connect()
    third.send(init())
    await rig.clock.until_sleeping(POLL_S)
    await rig.clock.advance(14.9)
    assert third.silent
    await rig.clock.advance(0.2)
    error = await third.error()
    assert error["content"] == "another realtime session is already active"
    assert (error["code"], error["retryable"]) == ("capacity", True)
    assert error["got"] == "2 of 2 taken"
    assert await third.closed() == (1008, "another realtime session is already active")
    assert rig.services.seats.taken == 2


async def test_a_waiting_visitor_gets_the_seat_that_becomes_free(rig: Rig) -> None:
    rig.handle.hold()
    first = await begin(rig)
    await begin(rig)
    third = await rig.connect()
    third.send(init(seed=99))
    await rig.clock.until_sleeping(POLL_S)
    first.drop()
    rig.handle.allow(1000)
    await first.ended()
    await rig.clock.advance(0.1)
    assert (await third.chunk())[-1].fields["chunk_index"] == 0
    assert rig.handle.opened[-1].seed == 99


async def test_a_seat_is_free_only_after_the_engine_let_go(start: Start) -> None:
    rig = await start(seats=1)
    first = await rig.connect()
    first.send(init(max_chunks=1))
    rig.handle.close_gate.clear()
    await first.chunk()
    second = await rig.connect()
    second.send(init(seed=99))
    await rig.clock.until_sleeping(POLL_S)
    await rig.clock.advance(5.0)
    assert rig.services.seats.taken == 1
    assert len(rig.handle.opened) == 1
    rig.handle.close_gate.set()
    assert (await first.closed())[0] == 1000
    await rig.clock.advance(0.1)
    assert (await second.chunk())[-1].fields["chunk_index"] == 0


async def test_no_seat_is_taken_before_a_valid_init(start: Start) -> None:
    rig = await start(seats=1)
    idle = await rig.connect()
    half = await rig.connect()
    half.send(init(first_frame=None))
    assert (await half.error())["content"] == "invalid generate request"
    guest = await rig.connect()
    guest.send(init(max_chunks=1))
    assert len(await guest.chunk()) == 2
    assert idle.silent


async def test_an_init_that_never_comes_ends_the_socket(rig: Rig) -> None:
    socket = await rig.connect()
    await rig.clock.until_sleeping(30)
    await rig.clock.advance(29.9)
    assert socket.silent
    await rig.clock.advance(0.2)
    error = await socket.error()
    assert error["content"] == "invalid generate request"
    assert error["message"] == "no init arrived"
    assert (await socket.closed())[0] == 1008


async def test_an_invalid_init_may_be_followed_by_a_valid_one(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(size="huge"))
    assert (await socket.error())["content"] == "invalid generate request"
    socket.send(init(max_chunks=1))
    await socket.chunk()
    assert (await socket.closed())[0] == 1000


async def test_what_came_after_a_refused_init_is_forgotten(rig: Rig) -> None:
    socket = await rig.connect()
    script = {"camera_actions": [["w"]] * 3}
    socket.send(init(first_frame=b"broken", condition_inputs=script))
    socket.send(keys("a", event_id=5))
    await socket.error()
    socket.send(init(max_chunks=1))
    assert (await socket.chunk())[-1].fields["event_id"] is None
    assert rig.handle.requests[0].actions == ((), (), ())


async def test_events_sent_right_after_init_count(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=1))
    socket.send(keys("a", event_id=5))
    assert (await socket.chunk())[-1].fields["event_id"] == 5
    assert rig.handle.requests[0].actions == (("a",),) * 3


async def test_attempts_at_init_are_limited(rig: Rig) -> None:
    socket = await rig.connect()
    for message in (b"\xc1", b"\x80", b"\x81", b"\x05"):
        socket.send_bytes(message)
        assert (await socket.error())["content"] == "invalid generate request"
    socket.send(init(first_frame=b""))
    assert (await socket.error())["code"] == "invalid_image"
    assert await socket.closed() == (1008, "too many invalid requests")


async def test_keys_before_an_init_are_no_attempts(rig: Rig) -> None:
    socket = await rig.connect()
    for _ in range(20):
        socket.send(keys("w"))
        assert (await socket.error())["message"] == "an event came first"
    socket.send(init(max_chunks=1))
    await socket.chunk()
    assert (await socket.closed())[0] == 1000


async def test_what_the_engine_refuses_at_opening_may_be_tried_again(rig: Rig) -> None:
    rig.handle.fail_open = ConfigError("no such window", expected="8", got=3)
    socket = await rig.connect()
    socket.send(init(max_chunks=1))
    error = await socket.error()
    assert (error["content"], error["code"]) == ("invalid generate request", "invalid_config")
    assert (error["expected"], error["got"]) == ("8", "3")
    assert rig.services.seats.taken == 0
    socket.send(init(max_chunks=1))
    await socket.chunk()
    assert (await socket.closed())[0] == 1000


async def test_an_engine_without_memory_says_so_and_frees_the_seat(rig: Rig) -> None:
    rig.handle.fail_open = CapacityError("the device has no memory left for this call")
    socket = await rig.connect()
    socket.send(init())
    error = await socket.error()
    assert error["content"].startswith("error during generate loop: the device has no memory")
    assert error["retryable"] is True
    assert (await socket.closed())[0] == 1011
    assert rig.services.seats.taken == 0


async def test_a_socket_before_warm_up_is_accepted_and_waits(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    rig = await start(handle, warm=False)
    socket = await rig.connect()
    socket.send(init(max_chunks=1, seed=5))
    await rig.entered()  # the warm-up, not the visitor
    await rig.clock.until_sleeping(120)
    assert socket.silent
    assert len(handle.opened) == 1
    handle.allow(100)
    await socket.chunk()
    assert handle.opened[1].seed == 5
    assert (await socket.closed())[0] == 1000


async def test_waiting_for_the_warm_up_has_a_limit(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    rig = await start(handle, warm=False, warmup_wait_s=60.0)
    socket = await rig.connect()
    socket.send(init())
    await rig.clock.until_sleeping(60)
    await rig.clock.advance(61)
    assert (await socket.error())["content"] == "the server is not ready"
    assert (await socket.closed())[0] == 1013
    assert rig.services.seats.taken == 0


async def test_a_failed_warm_up_turns_visitors_away(start: Start) -> None:
    handle = FakeHandle()
    handle.fail_step = (1, GenerationError("the device is on fire"))
    rig = await start(handle, warm=False)
    with pytest.raises(CapacityError):
        await rig.services.readiness.wait(rig.clock, 1.0)
    handle.fail_step = None
    socket = await rig.connect()
    socket.send(init())
    error = await socket.error()
    assert error["content"] == "the server is not ready"
    assert "the device is on fire" in error["got"]
    assert (await socket.closed())[0] == 1013


async def test_leaving_while_waiting_for_a_seat_leaves_nothing(start: Start) -> None:
    rig = await start(seats=1)
    rig.handle.hold()
    await begin(rig)
    second = await rig.connect()
    second.send(init())
    await rig.clock.until_sleeping(POLL_S)
    await second.leave()
    assert rig.clock.sleeping == []
    await settle()
    assert rig.services.seats.taken == 1
    assert len(rig.handle.opened) == 1


async def test_sockets_beyond_the_limit_are_told_at_once(start: Start) -> None:
    rig = await start(max_sockets=2)
    first, _ = await rig.connect(), await rig.connect()
    third = await rig.connect()
    error = await third.error()
    assert error["content"] == "another realtime session is already active"
    assert (await third.closed())[0] == 1008
    await first.leave()
    fourth = await rig.connect()
    fourth.send(init(max_chunks=1))
    await fourth.chunk()
