"""The handle in a live loop: frames ahead of the reply, steps given up, parking, counts."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.runtime import fake_engine
from tests.runtime.fake_engine import CHUNK, held, open_request, started, wait_for_file
from tests.runtime.test_handle import IDLE, pixel, step
from worldline.core.chunk import Decoded
from worldline.core.errors import (
    AbortedError,
    CapacityError,
    GenerationError,
    SessionMissingError,
)
from worldline.core.motion import Motion
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import StepRequest


@pytest.fixture(scope="module")
def shared_worker() -> Generator[WorkerHandle]:
    """One worker for all of them."""
    handle = WorkerHandle.spawn(fake_engine.settings(), slot_wait_s=0.2)
    yield handle
    handle.shutdown()


def test_frames_come_before_the_chunk(shared_worker: WorkerHandle) -> None:
    """Views into the slot of the result, in this thread, with the pose of their latent frame."""
    shared_worker.open(open_request("a", seed=7))
    for index in range(3):
        parts: list[Decoded] = []
        request = StepRequest(session_id="a", chunk_index=index, motions=(Motion(z=0.5),) * CHUNK)
        with shared_worker.step(request, on_frames=parts.append) as result:
            assert [part.latent_frame for part in parts] == list(range(CHUNK))
            assert [part.first for part in parts] == [0, 1 if index == 0 else 4]
            assert [part.pose for part in parts] == list(result.poses)
            assert all(np.shares_memory(part.frames, result.frames) for part in parts)
            seen = np.concatenate([part.frames for part in parts])
            assert np.array_equal(seen, result.frames) and (seen == 7 + index).all()
    shared_worker.close("a")


def test_a_watcher_that_fails_loses_its_chunk_only(shared_worker: WorkerHandle) -> None:
    shared_worker.open(open_request("a", seed=7))

    def fail(decoded: Decoded) -> None:
        raise ValueError(decoded.latent_frame)

    for index in range(5):  # more often than there are slots
        with pytest.raises(ValueError, match="0"):
            shared_worker.step(
                StepRequest(session_id="a", chunk_index=index, actions=IDLE), on_frames=fail
            )
    assert pixel(step(shared_worker, "a", 5)) == 12
    shared_worker.close("a")


def test_frames_of_a_step_that_fails_stay_as_long_as_they_are_looked_at(
    shared_worker: WorkerHandle,
) -> None:
    """Their slot is not written again until the last view of it is gone."""
    shared_worker.open(open_request("a", seed=7))
    kept: list[Decoded] = []
    late = StepRequest(session_id="a", chunk_index=0, actions=IDLE, prompt="fail-late")
    for _ in range(2):
        with pytest.raises(GenerationError):
            shared_worker.step(late, on_frames=kept.append)
    with pytest.raises(CapacityError, match="frame slots"):
        step(shared_worker, "a", 0)
    assert all((part.frames == 7).all() for part in kept)
    kept.clear()
    gc.collect()
    assert pixel(step(shared_worker, "a", 0)) == 7
    shared_worker.close("a")


def test_an_aborted_step_fails_and_can_be_asked_for_again(
    shared_worker: WorkerHandle, tmp_path: Path
) -> None:
    """Also one that still waits for its turn; what comes after it is not touched."""
    for name in "ab":
        shared_worker.open(open_request(name, seed=40))
    assert shared_worker.abort("a") is False  # nothing runs
    assert shared_worker.abort("nobody") is False
    go = tmp_path / "go"
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(step, shared_worker, "a", 0, prompt=f"wait {go}")
        wait_for_file(started(go))
        waiting = pool.submit(step, shared_worker, "b", 0)
        while not shared_worker.abort("b"):  # until it is on its way
            threading.Event().wait(0.001)
        assert shared_worker.abort("a") is True
        go.touch()
        for future in (running, waiting):
            with pytest.raises(AbortedError):
                future.result()
    for name in "ab":
        assert [pixel(step(shared_worker, name, i)) for i in range(3)] == [40, 41, 42]
        assert shared_worker.abort(name) is False
        shared_worker.close(name)


def test_park_unpark_reset_and_counts_cross(shared_worker: WorkerHandle) -> None:
    before = shared_worker.counts()
    opened = shared_worker.open(open_request("a", seed=5))
    assert len(opened.intrinsics) == 4 and opened.rig.move > 0
    assert [pixel(step(shared_worker, "a", i)) for i in range(2)] == [5, 6]
    shared_worker.park("a")
    counts = shared_worker.counts()
    assert (counts.sessions, counts.parked) == (before.sessions + 1, before.parked + 1)
    assert 1 <= counts.slots - before.slots <= 2
    shared_worker.unpark("a")
    assert shared_worker.counts().parked == before.parked
    shared_worker.reset("a")
    assert pixel(step(shared_worker, "a", 0)) == 5
    shared_worker.reset("a", 90)
    assert pixel(step(shared_worker, "a", 0)) == 90
    shared_worker.close("a")
    assert held(shared_worker.counts()) == held(before)
    for call in (shared_worker.park, shared_worker.unpark, shared_worker.reset):
        with pytest.raises(SessionMissingError):
            call("a")
