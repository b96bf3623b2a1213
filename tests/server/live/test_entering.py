"""Hello, enter, the queue: what is answered, and when."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import FakeHandle, settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import wish
from tests.server.sockets import picture
from worldline.core.errors import ConfigError, GenerationError
from worldline.core.live.client import Hello, Keys, Leave, Ping
from worldline.core.live.server import (
    Failure,
    Frame,
    Notice,
    Opened,
    Pong,
    Queued,
    Ready,
    Seat,
)

pytestmark = pytest.mark.anyio


async def test_hello_is_answered_with_the_limits(rig: Rig) -> None:
    socket = rig.connect()
    assert await socket.accepted() == "worldline.v1"
    socket.send(Hello(client="test"))
    ready = await socket.until(Ready)
    assert ready.model == "fake"
    assert ready.formats
    assert ready.limits.idle_lease_ms == 60_000
    assert ready.limits.grace_ms == 60_000
    assert ready.limits.init_timeout_ms == 30_000


async def test_a_client_without_sub_protocols_is_served_too(rig: Rig) -> None:
    socket = rig.connect(subprotocols=())
    assert await socket.accepted() is None
    socket.send(Hello())
    await socket.until(Ready)


async def test_entering_gives_a_seat_then_the_world(rig: Rig) -> None:
    socket = rig.connect()
    seat = await socket.enter(width=128, height=90, seed=5)
    assert isinstance(seat.token, str) and len(seat.token) > 30
    opened = await socket.until(Opened)
    assert (opened.width, opened.height, opened.seed) == (128, 96, 5)
    assert opened.controls and opened.state == "live"
    picture = rig.worlds.last.picture
    assert picture is not None and picture.shape == (24, 32, 3)
    assert rig.worlds.last.enter.image == b""  # taken out: nobody keeps it
    assert rig.services.seats.taken == 1


async def test_the_quality_of_enter_holds_from_the_first_picture(rig: Rig) -> None:
    coarse, fine, usual = (rig.connect() for _ in range(3))
    pictures: list[bytes] = []
    for socket, quality in ((coarse, 5), (fine, 95)):
        await socket.walk(quality=quality)
        await rig.worlds.last.chunk()
        pictures.append((await socket.until(Frame)).payload)
        socket.send(Leave())
        await socket.closed()
    await usual.walk()
    await rig.worlds.last.chunk()
    pictures.append((await usual.until(Frame)).payload)
    assert len(set(pictures)) == 3


async def test_the_answer_to_enter_does_not_wait_for_its_picture(rig: Rig) -> None:
    """Decoding takes threads, and many of them may be busy: the answer comes before."""
    socket = rig.connect()
    await socket.hello()
    socket.send(wish())
    for _ in range(5):  # turns of the loop, no thread among them
        await asyncio.sleep(0)
    assert not socket.silent
    assert isinstance(await socket.next(), Seat)


async def test_a_queue_tells_places_and_moves_up(start: Start) -> None:
    rig = await start(seats=1)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    queued = await second.queue()
    assert (queued.position, queued.ahead) == (1, 0)
    assert (await third.queue()).position == 2
    first.send(Leave())
    assert isinstance(await second.next(), Seat)
    assert (await third.until(Queued)).position == 1
    await second.until(Opened)
    assert rig.house.waiting == 1


async def test_who_drops_out_of_the_queue_is_passed_over_and_loses_the_place(start: Start) -> None:
    rig = await start(seats=1, heartbeat_s=0, idle_lease_s=0)
    first, second, third, fourth = (rig.connect() for _ in range(4))
    await first.walk()
    await second.queue()
    await third.queue(seed=1)
    await fourth.queue(seed=2)
    await second.leave()
    first.send(Leave())
    await third.until(Opened)
    assert (await fourth.until(Queued)).position == 2  # the place of the second is kept a while
    await rig.clock.advance(60.1)
    assert (await fourth.until(Queued)).position == 1
    assert len(rig.house.rooms) == 2


async def test_who_comes_back_to_the_queue_has_the_same_place(start: Start) -> None:
    rig = await start(seats=1, heartbeat_s=0, worlds_per_client=3)
    first, second, third = (rig.connect() for _ in range(3))
    await first.walk()
    await second.queue(seed=1)
    await third.queue(seed=2)
    await second.leave()
    again = rig.connect()
    await again.hello()
    again.send(wish(seed=1))
    assert (await again.until(Queued)).position == 1
    assert len(rig.house.rooms) == 3
    stranger = rig.connect(host="127.0.0.9")
    await third.leave()
    assert (await stranger.queue(seed=2)).position == 3
    await rig.clock.advance(61)
    assert (await stranger.until(Queued)).position == 2
    first.send(Leave())
    await again.until(Opened)
    assert rig.worlds.last.enter.seed == 1


async def test_who_leaves_the_queue_frees_the_place(start: Start) -> None:
    rig = await start(seats=1)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await third.queue()
    second.send(Leave())
    assert (await second.closed())[1] == 4001
    assert (await third.until(Queued)).position == 1
    assert len(rig.house.rooms) == 2


async def test_who_is_back_when_a_seat_is_free_gets_it_at_once(start: Start) -> None:
    rig = await start(seats=1)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await second.leave()
    first.send(Leave())
    await first.closed()
    while rig.services.seats.taken:
        await settle()
    again = rig.connect()
    await again.walk()
    assert len(rig.worlds.made) == 2


async def test_a_full_queue_says_when_to_come_back_and_closes(start: Start) -> None:
    rig = await start(seats=1, max_queue=1)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    await third.hello()
    third.send(wish())
    error, code = await third.closed()
    assert (error.code, error.retryable, error.fatal) == ("capacity", True, True)
    assert error.retry_after_ms > 0
    assert code == 4503


async def test_pictures_of_those_who_wait_have_a_limit(start: Start) -> None:
    rig = await start(seats=1, max_waiting_bytes=3000)
    first, second, third = rig.connect(), rig.connect(), rig.connect()
    await first.walk()
    await second.queue(image=picture(size=(900, 600)) + bytes(1000))
    await third.hello()
    third.send(wish(image=bytes(2000)))
    error, code = await third.closed()
    assert (error.code, code) == ("capacity", 4503)


async def test_a_client_has_so_many_worlds_and_no_more(start: Start) -> None:
    rig = await start(seats=4, worlds_per_client=2)
    for _ in range(2):
        await rig.connect().enter()
    socket = rig.connect()
    await socket.hello()
    socket.send(wish())
    error, code = await socket.closed()
    assert (error.code, code) == ("client_limit", 4429)
    other = rig.connect(host="127.0.0.2")
    await other.enter()


async def test_seats_are_shared_with_the_mainline(start: Start) -> None:
    rig = await start(seats=1)
    assert rig.services.seats.take("a visitor of the mainline")
    socket = rig.connect()
    await socket.queue()
    rig.services.seats.release("a visitor of the mainline")
    assert isinstance(await socket.next(), Seat)
    await socket.until(Opened)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": "  "}, "invalid_prompt"),
        ({"window": 2}, "invalid_config"),
        ({"window": 4000}, "invalid_config"),
        ({"image": b"no picture"}, "invalid_image"),
        ({"image": b""}, "invalid_image"),
    ],
)
async def test_a_wish_that_cannot_be_may_be_followed_by_another(
    rig: Rig, fields: dict[str, object], code: str
) -> None:
    socket = rig.connect()
    await socket.hello()
    socket.send(wish(**fields))
    error = await socket.next()
    while not isinstance(error, Failure):
        error = await socket.next()
    assert (error.code, error.fatal) == (code, False)
    while rig.house.rooms:
        await settle()
    assert rig.services.seats.taken == 0
    socket.send(wish())
    await socket.until(Opened)


async def test_what_the_engine_refuses_at_opening_may_be_tried_again(rig: Rig) -> None:
    rig.worlds.fail_open = ConfigError("no such window", expected="8", got=3)
    socket = rig.connect()
    await socket.enter()
    error = await socket.next()
    while not isinstance(error, Failure):
        error = await socket.next()
    assert (error.code, error.expected, error.got) == ("invalid_config", "8", "3")
    while rig.house.rooms:
        await settle()
    socket.send(wish())
    await socket.until(Opened)


async def test_what_fails_at_opening_ends_the_socket(rig: Rig) -> None:
    rig.worlds.fail_open = GenerationError("out of luck")
    socket = rig.connect()
    await socket.enter()
    error, code = await socket.closed()
    assert (error.code, error.fatal, code) == ("generation_error", True, 4500)
    await rig.empty()


async def test_attempts_are_limited(start: Start) -> None:
    rig = await start(init_attempts=3)
    socket = rig.connect()
    await socket.hello()
    for _ in range(3):
        socket.send(wish(prompt=" "))
    error, code = await socket.closed()
    assert (error.code, error.fatal, code) == ("invalid_prompt", True, 4400)


async def test_pictures_that_cannot_be_read_are_attempts_too(start: Start) -> None:
    rig = await start(init_attempts=3)
    socket = rig.connect()
    await socket.hello()
    socket.send(wish(prompt=" "))
    assert not (await socket.next()).fatal
    for fatal in (False, True):
        socket.send(wish(image=b"no picture"))
        error = await socket.next()
        while not isinstance(error, Failure):
            error = await socket.next()
        assert (error.code, error.fatal) == ("invalid_image", fatal)
        while rig.house.rooms:
            await settle()
    assert (await socket.closed())[1] == 4400


async def test_before_hello_nothing_but_hello(rig: Rig) -> None:
    socket = rig.connect()
    await socket.accepted()
    socket.send(wish())
    error = await socket.next()
    assert (error.code, error.expected, error.got) == (
        "invalid_generate_request",
        "hello",
        "enter",
    )
    socket.send(Ping(at_ms=5.0))
    assert (await socket.until(Pong)).at_ms == 5.0


async def test_another_version_is_refused(rig: Rig) -> None:
    socket = rig.connect()
    await socket.accepted()
    socket.send(Hello(version=2))
    error = await socket.next()
    assert (error.expected, error.got) == ("1", "2")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x81\xa4type\xa4nope", b"\x05" * 99])
async def test_what_cannot_be_read_is_refused_and_survived(rig: Rig, data: bytes) -> None:
    socket = rig.connect()
    await socket.hello()
    socket.send_bytes(data)
    assert (await socket.next()).code == "invalid_event"
    socket.send_text("hello")
    assert (await socket.next()).code == "protocol_error"
    socket.send(wish())
    await socket.until(Opened)


async def test_an_input_without_a_world_is_refused_with_its_id(rig: Rig) -> None:
    socket = rig.connect()
    await socket.hello()
    socket.send(Keys(id=77, held=("w",)))
    error = await socket.next()
    assert (error.code, error.id) == ("session_error", 77)


async def test_silence_before_a_world_is_announced_and_ends(start: Start) -> None:
    rig = await start(heartbeat_s=0)
    socket = rig.connect()
    await socket.hello()
    await settle()
    await rig.clock.advance(15.1)
    notice = await socket.until(Notice)
    assert (notice.code, notice.in_ms) == ("init_timeout", 15_000)
    await rig.clock.advance(15)
    error, code = await socket.closed()
    assert (error.code, code) == ("timed_out", 4408)


async def test_a_socket_that_says_nothing_is_given_up(start: Start) -> None:
    rig = await start(heartbeat_s=2.0, init_timeout_s=0.0)
    socket = rig.connect()
    await socket.walk()
    await rig.clock.advance(3.9)
    socket.send(Ping(at_ms=1))
    await socket.until(Pong)
    await rig.clock.advance(4.2)
    assert (await socket.until(Notice)).code == "heartbeat"
    await rig.clock.advance(2.0)
    error, code = await socket.closed()
    assert (error.code, code) == ("timed_out", 4408)
    assert len(rig.house.rooms) == 1  # the world waits for whoever comes back


async def test_before_the_warm_up_everybody_waits_in_line(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    rig = await start(handle, warm=False)
    socket = rig.connect()
    await socket.queue()
    assert (await socket.until(Notice)).code == "warming_up"
    handle.allow(1000)
    await socket.until(Opened)


async def test_a_failed_warm_up_turns_everybody_away(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    handle.fail_step = (0, GenerationError("the device is on fire"))
    rig = await start(handle, warm=False)
    socket, late = rig.connect(), rig.connect()
    await socket.queue()
    handle.allow(1000)
    error, code = await socket.closed()
    assert (error.code, code) == ("capacity", 4503)
    assert "on fire" in error.got
    await late.hello()
    late.send(wish())
    assert (await late.closed())[1] == 4503


async def test_sockets_beyond_the_limit_are_told(start: Start) -> None:
    rig = await start(max_sockets=1)
    await rig.connect().hello()
    second = rig.connect()
    await second.accepted()
    error, code = await second.closed()
    assert (error.code, code) == ("capacity", 4503)
    assert error.retry_after_ms > 0
