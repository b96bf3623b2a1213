"""The small parts without a socket: sizes, requests, pacing, threads, seats, exposure."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.fakes import LIMIT_S, FakeClock, fake_info, settle
from tests.server.sockets import init, picture
from worldline.core.config import ServerConfig
from worldline.core.errors import CapacityError, WorldlineError
from worldline.core.events import Init, decode_message
from worldline.server.doors.policy import is_loopback
from worldline.server.pacing import Pace, after_sending, wait_for
from worldline.server.requests import LiveRequest, nearest_size, read_request, to_open
from worldline.server.seats import Seats
from worldline.server.waiting import in_thread, stop, within

pytestmark = pytest.mark.anyio


async def read(**fields: Any) -> LiveRequest:
    message = decode_message(msgspec.msgpack.encode(init(**fields)))
    assert isinstance(message, Init)
    with ThreadPoolExecutor(1) as pool:
        return await read_request(message, info=fake_info(), config=ServerConfig(), pool=pool)


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        (None, (64, 48)),
        ("64x48", (64, 48)),
        ("65x47", (64, 48)),
        ("832x480", (128, 96)),
        ("120x100", (128, 96)),
        ("480x832", (48, 64)),
        ("50x50", (64, 48)),
        ("1x1", (64, 48)),
        ("99999x1", (128, 96)),
    ],
)
def test_the_nearest_size_of_that_orientation(wish: str | None, size: tuple[int, int]) -> None:
    assert nearest_size(wish, fake_info()) == size


@pytest.mark.parametrize(
    "wish",
    [
        "",
        "832",
        "832x",
        "x480",
        "0x480",
        "832x480x3",
        "832 x 480",
        "-832x480",
        "٣x٤",
        "832X480",
        "1e3x10",
        "832x480\n",
        "999999x480",
    ],
)
def test_malformed_sizes_are_refused(wish: str) -> None:
    with pytest.raises(WorldlineError, match="WIDTHxHEIGHT"):
        nearest_size(wish, fake_info())


async def test_an_init_becomes_an_open_request() -> None:
    request = await read(
        seed=3.0,
        size="832x480",
        fps=25,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=1.0,
        realtime_output_format="webp",
        output_compression=80,
        realtime_preview_max_width=40,
        realtime_output_pacing=True,
        realtime_causal_sink_size=3,
        realtime_causal_kv_cache_num_frames=12,
        max_chunks=4,
        enable_upscaling=False,
        quality="lossless",
        some_future_field=[1, {"a": None}],
    )
    with ThreadPoolExecutor(1) as pool:
        opening = await to_open(request, session_id="s", config=ServerConfig(), pool=pool)
    assert (opening.session_id, opening.prompt) == ("s", "a lake")
    assert (opening.width, opening.height, opening.seed) == (128, 96, 3)
    assert (opening.window, opening.sink, opening.steps, opening.chunk) == (12, 3, None, None)
    assert (opening.image_width, opening.image_height) == (32, 24)
    assert np.frombuffer(opening.image, np.uint8).reshape(24, 32, 3)[0, 0].tolist() == [0, 128, 128]
    playback = request.playback
    assert (playback.fps, playback.pacing, playback.max_chunks) == (25, True, 4)
    output = playback.output
    assert (output.kind, output.quality, output.preview_width) == ("webp", 80, 40)


async def test_absent_and_null_fields_take_the_defaults() -> None:
    request = await read(seed=None, output_compression=0)
    playback = request.playback
    assert (request.seed, playback.fps, playback.pacing) == (42, 16, False)
    assert (playback.output.kind, playback.output.quality) == ("raw", 0)
    assert (request.window, request.sink) == (None, None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": " "}, "invalid_prompt"),
        ({"prompt": "x" * 5000}, "invalid_prompt"),
        ({"first_frame": None}, "invalid_image"),
        ({"first_frame": b""}, "invalid_image"),
        ({"first_frame": "/etc/passwd"}, "invalid_image"),
        ({"first_frame": "https://example.org/x.png"}, "invalid_image"),
        ({"first_frame": picture(size=(3000, 20))}, "invalid_image"),
        ({"enable_upscaling": True}, "invalid_config"),
        ({"enable_frame_interpolation": True}, "invalid_config"),
        ({"realtime_causal_kv_cache_num_frames": 4}, "invalid_config"),
        ({"realtime_causal_kv_cache_num_frames": 37}, "invalid_config"),
        ({"realtime_causal_sink_size": 7}, "invalid_config"),
        ({"size": "big"}, "invalid_generate_request"),
    ],
)
async def test_what_cannot_be_honoured_is_a_typed_error(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(WorldlineError) as caught:
        await read(**fields)
    assert caught.value.code == code


def test_pacing_follows_the_playback_rate() -> None:
    pace = Pace(10.0)
    pace, wait = wait_for(pace, 10.0, None)
    assert wait == 0
    pace = after_sending(pace, 10.0, 12, 24)
    pace, wait = wait_for(pace, 10.2, None)
    assert wait == pytest.approx(0.3)
    pace = after_sending(pace, 10.5, 12, 24)
    assert pace.next_send == pytest.approx(11.0)


def test_a_late_chunk_does_not_make_the_next_ones_hurry() -> None:
    pace = after_sending(Pace(10.0), 13.0, 12, 24)
    assert pace.next_send == pytest.approx(13.5)


def test_a_new_event_pulls_the_schedule_forward_once() -> None:
    pace = Pace(20.0)
    pace, wait = wait_for(pace, 10.0, 4)
    assert (wait, pace.next_send) == (0, 10.0)
    pace = after_sending(pace, 10.0, 24, 24)
    pace, wait = wait_for(pace, 10.0, 4)
    assert wait == 1.0


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    began, proceed = threading.Event(), threading.Event()
    abandoned: list[int] = []

    def work() -> int:
        began.set()
        assert proceed.wait(LIMIT_S)
        return 5

    with ThreadPoolExecutor(1) as pool:
        task = asyncio.create_task(in_thread(pool, work, abandon=abandoned.append))
        await asyncio.to_thread(began.wait, LIMIT_S)
        for _ in range(3):
            task.cancel()
            await settle()
        assert not task.done()
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert abandoned == [5]


async def test_an_error_in_an_abandoned_thread_is_no_result() -> None:
    began, proceed = threading.Event(), threading.Event()
    abandoned: list[int] = []

    def work() -> int:
        began.set()
        assert proceed.wait(LIMIT_S)
        raise ValueError("too late")

    with ThreadPoolExecutor(1) as pool:
        task = asyncio.create_task(in_thread(pool, work, abandon=abandoned.append))
        await asyncio.to_thread(began.wait, LIMIT_S)
        task.cancel()
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert abandoned == []


async def test_within_a_time() -> None:
    clock = FakeClock()

    async def quick() -> int:
        return 3

    assert await within(clock, 1.0, quick()) == 3
    assert clock.sleeping == []
    never = asyncio.Event()
    waiting = asyncio.create_task(within(clock, 2.0, never.wait()))
    await clock.until_sleeping(2.0)
    await clock.advance(2.0)
    with pytest.raises(TimeoutError):
        await waiting


async def test_stop_waits_for_tasks_that_take_their_time() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await settle(5)
            ended.append("slow")

    task = asyncio.create_task(slow())
    await settle()
    await stop(task, None)
    assert ended == ["slow"]


async def test_stop_lets_callbacks_of_ended_tasks_run() -> None:
    ended = asyncio.Event()

    async def quick() -> None:
        ended.set()

    seen: list[str] = []
    task = asyncio.create_task(quick())
    task.add_done_callback(lambda _: seen.append("callback"))
    await ended.wait()  # the task is done in this very pass
    assert task.done()
    assert seen == []
    await stop(task)
    assert seen == ["callback"]


async def test_a_cancelled_stop_still_lets_callbacks_run() -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    task = asyncio.create_task(slow())
    await settle()
    stopping = asyncio.create_task(stop(task))
    await settle()
    stopping.cancel()
    task.add_done_callback(lambda _: seen.append("callback"))
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert task.done()
    assert seen == ["callback"]


async def test_seats_poll_ten_times_a_second() -> None:
    clock, seats = FakeClock(), Seats(1)
    assert seats.take("a")
    asked = asyncio.create_task(seats.wait("b", clock, 15.0))
    await clock.until_sleeping(0.1)
    await clock.advance(1.0)
    seats.release("a")
    await clock.advance(0.1)
    await asked
    assert seats.taken == 1
    with pytest.raises(CapacityError):
        await seats.wait("c", clock, 0.0)


@pytest.mark.parametrize(
    ("host", "safe"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("example.org", False),
    ],
)
def test_only_loopback_is_open(host: str, safe: bool) -> None:
    assert is_loopback(host) == safe
