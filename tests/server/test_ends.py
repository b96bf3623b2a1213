"""How sessions end when nobody asked them to: disconnects, errors, a dead worker, a stop."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from tests.fakes import LIMIT_S, FakeHandle, settle
from tests.server.conftest import Rig, running
from tests.server.sockets import Socket, init, keys
from worldline.core.config import ServerConfig
from worldline.core.errors import GenerationError
from worldline.server import encoding

pytestmark = pytest.mark.anyio


def all_given_back(rig: Rig) -> None:
    rig.handle.nothing_is_left()
    assert rig.services.seats.taken == 0
    assert rig.services.sockets.taken == 0


async def test_a_disconnect_waits_for_the_step_and_gives_its_frames_back(rig: Rig) -> None:
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init())
    await rig.entered()
    socket.drop()
    await settle()
    assert rig.handle.closed == []  # the step still runs, so the session is still open
    assert rig.services.seats.taken == 1
    rig.handle.allow()
    await socket.ended()
    assert len(rig.handle.closed) == 1
    all_given_back(rig)


async def test_a_disconnect_while_the_engine_opens(rig: Rig) -> None:
    rig.handle.open_gate.clear()
    while rig.handle.opening.acquire(blocking=False):
        pass  # the warm-up's
    socket = await rig.connect()
    socket.send(init())
    assert await asyncio.to_thread(rig.handle.opening.acquire, timeout=LIMIT_S)
    socket.drop()
    await settle()
    assert not socket.task.done()
    rig.handle.open_gate.set()
    await socket.ended()
    assert len(rig.handle.closed) == 1
    all_given_back(rig)


@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
async def test_a_disconnect_after_any_number_of_chunks(rig: Rig, chunks: int, kind: str) -> None:
    socket = await rig.connect()
    socket.send(init(realtime_output_format=kind))
    for _ in range(chunks):
        await socket.chunk()
    await socket.leave()
    all_given_back(rig)


async def test_a_disconnect_between_header_and_payload(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(size="128x96"))
    await socket.next_part()
    await socket.leave()
    all_given_back(rig)


async def test_a_disconnect_while_frames_are_encoded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames stay untouched until the last thread has read them."""
    began, proceed = threading.Event(), threading.Event()
    encode_jpeg = encoding.jpeg.encode_jpeg
    seen: list[bytes] = []

    def slow(frame, quality):
        began.set()
        proceed.wait(LIMIT_S)
        seen.append(frame.tobytes())
        return encode_jpeg(frame, quality)

    monkeypatch.setattr(encoding.jpeg, "encode_jpeg", slow)
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init(realtime_output_format="jpeg"))
    rig.handle.allow()
    await asyncio.to_thread(began.wait, LIMIT_S)
    socket.drop()
    await settle()
    assert [r.released for r in rig.handle.results] == [0]
    rig.handle.allow()  # chunk 1 was already asked for
    proceed.set()
    await socket.ended()
    assert len(seen) == 9
    assert all(any(pixels) for pixels in seen)
    all_given_back(rig)


async def test_an_engine_error_is_told_after_the_frames_made_before_it(rig: Rig) -> None:
    rig.handle.fail_step = (2, GenerationError("out of luck\nwith a second line"))
    socket = await rig.connect()
    socket.send(init())
    for index in range(2):
        assert (await socket.chunk())[-1].fields["chunk_index"] == index
    error = await socket.error()
    assert error["content"] == "error during generate loop: out of luck"
    assert error["code"] == "generation_error"
    assert (await socket.closed())[0] == 1011
    all_given_back(rig)


async def test_an_unexpected_error_is_no_silent_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(frame, quality):
        raise ZeroDivisionError("in the codec")

    monkeypatch.setattr(encoding.webp, "encode_webp", broken)
    socket = await rig.connect()
    socket.send(init(realtime_output_format="webp"))
    error = await socket.error()
    assert error["content"] == "error during generate loop: ZeroDivisionError: in the codec"
    assert (await socket.closed())[0] == 1011
    all_given_back(rig)


async def test_a_dead_worker_ends_sessions_with_an_error(rig: Rig) -> None:
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init())
    await rig.entered()
    rig.handle.die()
    error = await socket.error()
    assert (error["code"], error["retryable"]) == ("worker_died", True)
    assert (await socket.closed())[0] == 1011
    assert rig.services.seats.taken == 0


async def test_a_reader_that_stops_reading_holds_two_chunks_and_no_more(rig: Rig) -> None:
    """One chunk is being written, one is encoded behind it, and the engine is asked for no more."""
    slow, other = await rig.connect(), await rig.connect()
    slow.stall()
    slow.send(init(seed=1))
    while rig.handle.asked(slow_seed := 1) < 2:
        await settle()
    while not all(r.released == 1 for r in rig.handle.results):
        await settle()  # both are encoded; neither holds memory of the engine
    other.send(init(seed=2, max_chunks=6))
    for _ in range(6):
        await other.chunk()
    assert (await other.closed())[0] == 1000
    assert rig.handle.asked(slow_seed) == 2
    await slow.leave()
    all_given_back(rig)


async def test_stopping_the_app_ends_its_tasks() -> None:
    handle = FakeHandle()
    handle.hold()
    async with running(ServerConfig(), handle) as rig:
        await rig.entered()  # in the middle of the warm-up
        handle.allow()
    assert handle.sessions == {}


async def test_a_hundred_disconnects_at_random_moments_leave_nothing(rig: Rig) -> None:
    dice = random.Random(20)
    for _ in range(100):
        socket: Socket = await rig.connect()
        if dice.random() < 0.9:
            socket.send(init(realtime_output_format=dice.choice(["raw", "jpeg"])))
        for _ in range(dice.randrange(4)):
            socket.send(keys(dice.choice("wasd")))
        await settle(dice.randrange(60))
        if dice.random() < 0.3:
            await asyncio.to_thread(lambda: None)  # lets the threads of the engine get ahead
            await settle(dice.randrange(20))
        await socket.leave()
        all_given_back(rig)
