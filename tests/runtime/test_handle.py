"""The handle and a real worker process around a fake engine: order, errors, death, no leftovers."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.runtime import fake_engine
from tests.runtime.fake_engine import (
    CHUNK,
    HEIGHT,
    WIDTH,
    open_request,
    shared_names,
    started,
    wait_for_file,
)
from worldline.core.errors import (
    CapacityError,
    CheckpointError,
    ControlError,
    GenerationError,
    ImageError,
    PromptError,
    SessionError,
    SessionMissingError,
    WorkerDiedError,
)
from worldline.runtime.handle import StepResult, WorkerHandle
from worldline.runtime.protocol import LoadProgress, OpenRequest, StepRequest

IDLE = ((),) * CHUNK


def step(
    handle: WorkerHandle, session: str, index: int, *, prompt: str | None = None
) -> StepResult:
    """Generate one chunk, idle."""
    return handle.step(
        StepRequest(session_id=session, chunk_index=index, actions=IDLE, prompt=prompt)
    )


def pixel(result: StepResult) -> int:
    """The one value all pixels of a fake chunk have; gives the slot back."""
    with result:
        values = np.unique(result.frames)
        assert values.size == 1
        return int(values[0])


@pytest.fixture(scope="module")
def shared_worker() -> Generator[WorkerHandle]:
    """One worker for the tests that leave it alive."""
    handle = WorkerHandle.spawn(fake_engine.settings(), slot_wait_s=0.2)
    yield handle
    handle.shutdown()


@pytest.fixture
def own_worker() -> Generator[WorkerHandle]:
    """A worker of the test's own; afterwards nothing of it is left, process or memory."""
    handle = WorkerHandle.spawn(fake_engine.settings())
    pid = handle.pid
    yield handle
    handle.shutdown()
    gc.collect()
    assert not handle.alive()
    assert not shared_names()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_frames_cross_with_shape_and_timings(shared_worker: WorkerHandle) -> None:
    opened = shared_worker.open(open_request("a", seed=7))
    assert (opened.width, opened.height, opened.chunk, opened.fps) == (WIDTH, HEIGHT, CHUNK, 16)
    first, second = step(shared_worker, "a", 0), step(shared_worker, "a", 1)
    assert first.frames.shape == (4 * CHUNK - 3, HEIGHT, WIDTH, 3)
    assert second.frames.shape == (4 * CHUNK, HEIGHT, WIDTH, 3)
    assert first.frames.dtype == np.uint8
    assert first.timings.total_ms >= 1.0
    assert [pixel(first), pixel(second)] == [7, 8]
    shared_worker.close("a")


def test_sessions_interleave_and_keep_their_own_frames(shared_worker: WorkerHandle) -> None:
    names = {"p": 10, "q": 60, "r": 110}

    def walk(name: str) -> list[int]:
        shared_worker.open(open_request(name, seed=names[name]))
        pixels = [pixel(step(shared_worker, name, i)) for i in range(20)]
        shared_worker.close(name)
        return pixels

    with ThreadPoolExecutor(3) as pool:
        walked = dict(zip(names, pool.map(walk, names), strict=True))
    assert walked == {name: [seed + i for i in range(20)] for name, seed in names.items()}


def test_two_sessions_alternate_chunk_by_chunk(own_worker: WorkerHandle, tmp_path: Path) -> None:
    """While `a` computes a chunk, `b` waits: one device, one call at a time, first come first."""
    for name in "ab":
        own_worker.open(open_request(name))
    order: list[str] = []
    go = tmp_path / "go"

    def walk(name: str, index: int, prompt: str | None = None) -> None:
        pixel(step(own_worker, name, index, prompt=prompt))
        order.append(f"{name}{index}")

    held = threading.Thread(target=walk, args=("a", 0, f"wait {go}"))
    other = threading.Thread(target=walk, args=("b", 0))
    held.start()
    wait_for_file(started(go))
    other.start()
    other.join(0.1)
    assert order == []
    go.touch()
    held.join()
    other.join()
    assert sorted(order) == ["a0", "b0"]  # sorted: two threads woke up to append


@pytest.mark.parametrize(("prompt", "error"), [("raise", GenerationError), ("refuse", PromptError)])
def test_an_error_belongs_to_its_call_only(
    shared_worker: WorkerHandle, prompt: str, error: type[Exception]
) -> None:
    shared_worker.open(open_request("good", seed=3))
    shared_worker.open(open_request("bad", seed=90))
    assert pixel(step(shared_worker, "good", 0)) == 3
    with pytest.raises(error):
        step(shared_worker, "bad", 0, prompt=prompt)
    assert pixel(step(shared_worker, "good", 1)) == 4
    assert pixel(step(shared_worker, "bad", 0)) == 90  # its slot came back and it can go on
    shared_worker.close("good")
    shared_worker.close("bad")


def test_expected_and_got_cross_the_process(shared_worker: WorkerHandle) -> None:
    shared_worker.open(open_request("a"))
    with pytest.raises(ControlError) as caught:
        shared_worker.step(StepRequest(session_id="a", chunk_index=0, actions=(("?",), ())))
    assert (caught.value.expected, caught.value.got) == ("one of wasd", "?")
    shared_worker.close("a")


def test_wrong_chunk_index_and_unknown_session(shared_worker: WorkerHandle) -> None:
    with pytest.raises(SessionMissingError):
        step(shared_worker, "nobody", 0)
    shared_worker.open(open_request("a"))
    with pytest.raises(SessionMissingError, match="expected chunk 0"):
        step(shared_worker, "a", 1)
    with pytest.raises(SessionError, match="a session with this id is open"):
        shared_worker.open(open_request("a"))
    shared_worker.close("a")
    with pytest.raises(SessionMissingError):
        step(shared_worker, "a", 0)


def test_picture_bytes_must_fit(shared_worker: WorkerHandle) -> None:
    request = OpenRequest(
        session_id="a", image=b"abc", image_width=8, image_height=8, prompt="a place"
    )
    with pytest.raises(ImageError, match="got 3 bytes"):
        shared_worker.open(request)


def test_a_reader_that_keeps_its_slots_stops_only_itself(shared_worker: WorkerHandle) -> None:
    shared_worker.open(open_request("slow"))
    shared_worker.open(open_request("quick", seed=50))
    kept = [step(shared_worker, "slow", 0), step(shared_worker, "slow", 1)]
    with pytest.raises(CapacityError, match="frame slots"):
        step(shared_worker, "slow", 2)
    assert pixel(step(shared_worker, "quick", 0)) == 50
    assert [pixel(result) for result in kept] == [1, 2]
    assert pixel(step(shared_worker, "slow", 2)) == 3
    shared_worker.close("slow")
    shared_worker.close("quick")


def test_a_waiting_step_goes_on_when_a_slot_is_released(own_worker: WorkerHandle) -> None:
    own_worker.open(open_request("a"))
    kept = [step(own_worker, "a", 0), step(own_worker, "a", 1)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(step, own_worker, "a", 2)
        kept[0].release()
        assert pixel(waiting.result()) == 3
    assert pixel(kept[1]) == 2


def test_a_dropped_result_gives_its_slot_back(shared_worker: WorkerHandle) -> None:
    shared_worker.open(open_request("a"))
    for i in range(6):
        frames = step(shared_worker, "a", i).frames[-1]  # a view alone keeps the pixels
        assert int(frames.max()) == 1 + i
        del frames
    shared_worker.close("a")


def test_larger_chunks_get_larger_slots(own_worker: WorkerHandle) -> None:
    for size in (1, 5, 2):
        own_worker.open(open_request("a", chunk=size))
        for i in range(4):
            result = own_worker.step(
                StepRequest(session_id="a", chunk_index=i, actions=((),) * size)
            )
            assert len(result.frames) == (4 * size - 3 if i == 0 else 4 * size)
            result.release()
        own_worker.close("a")


def test_close_returns_after_the_worker_dropped_its_state(
    own_worker: WorkerHandle, tmp_path: Path
) -> None:
    own_worker.open(open_request("a"))
    go = tmp_path / "go"
    step(own_worker, "a", 0, prompt=f"slow-close {go}").release()
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(own_worker.close, "a")
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go.touch()
        closing.result()
    assert go.with_suffix(".closed").exists()
    own_worker.close("a")  # closing again, or something unknown, is no error
    own_worker.close("never opened")


def test_closing_beside_a_chunk_in_flight(own_worker: WorkerHandle, tmp_path: Path) -> None:
    """The chunk in flight arrives whole; what comes after the close finds no session."""
    own_worker.open(open_request("a"))
    go = tmp_path / "go"
    with ThreadPoolExecutor(2) as pool:
        stepping = pool.submit(step, own_worker, "a", 0, prompt=f"wait {go}")
        wait_for_file(started(go))
        closing = pool.submit(own_worker.close, "a")
        while "a" in own_worker._sessions:
            time.sleep(0.001)
        with pytest.raises(SessionMissingError):
            step(own_worker, "a", 1)
        go.touch()
        closing.result()
        assert pixel(stepping.result()) == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_nothing_stays_open_or_mapped_for_forgotten_results(own_worker: WorkerHandle) -> None:
    def left() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count(f"worldline-{os.getpid()}-")

    before = left()
    for _ in range(3):
        own_worker.open(open_request("a"))
        first, second = step(own_worker, "a", 0), step(own_worker, "a", 1)
        own_worker.close("a")
        assert int(second.frames.max()) == 2  # readable as long as it is held
        assert left()[1] == before[1] + 2
        first.release()
        del first, second
        gc.collect()
        assert left() == before


def test_full_shared_memory_is_an_error_of_that_call(
    own_worker: WorkerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system cannot reserve shared memory")

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    own_worker.open(open_request("a"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(CapacityError, match="No space left"):
            step(own_worker, "a", 0)
    assert not shared_names()
    assert pixel(step(own_worker, "a", 0)) == 1


def test_killed_worker_fails_pending_and_later_calls(
    own_worker: WorkerHandle, tmp_path: Path
) -> None:
    for name in "abc":
        own_worker.open(open_request(name))
    kept, never = step(own_worker, "c", 0), tmp_path / "never"
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(step, own_worker, "a", 0, prompt=f"wait {never}")]
        wait_for_file(started(never))  # from here on nothing else is answered
        pending += [pool.submit(step, own_worker, "b", 0), pool.submit(own_worker.close, "c")]
        os.kill(own_worker.pid, signal.SIGKILL)
        for future in pending[:2]:
            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                future.result()
        pending[2].result()  # a dead worker holds nothing: closing succeeds
    assert not own_worker.alive()
    for call in (lambda: step(own_worker, "a", 1), lambda: own_worker.open(open_request("d"))):
        with pytest.raises(WorkerDiedError):
            call()
    own_worker.close("a")
    assert pixel(kept) == 1  # pixels that had arrived stay readable


def test_a_worker_that_exits_says_how(own_worker: WorkerHandle) -> None:
    own_worker.open(open_request("a"))
    with pytest.raises(WorkerDiedError, match="exit code 7"):
        step(own_worker, "a", 0, prompt="exit")


def test_names_are_gone_while_frames_are_still_held(own_worker: WorkerHandle) -> None:
    own_worker.open(open_request("a"))
    with step(own_worker, "a", 0) as result:
        assert not shared_names()
        assert int(result.frames[0, 0, 0, 0]) == 1


def test_shutdown_twice_and_with_a_busy_worker(own_worker: WorkerHandle, tmp_path: Path) -> None:
    own_worker.open(open_request("a"))
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(step, own_worker, "a", 0, prompt=f"wait {tmp_path / 'never'}")
        wait_for_file(started(tmp_path / "never"))
        own_worker.shutdown(limit_s=0.1)
        with pytest.raises(WorkerDiedError):
            busy.result()
    own_worker.shutdown()


def test_progress_reaches_the_parent() -> None:
    seen: list[LoadProgress] = []
    handle = WorkerHandle.spawn(fake_engine.settings(), on_progress=seen.append)
    handle.shutdown()
    assert [(p.stage, p.done, p.total) for p in seen] == [
        ("starting", 0, 0),
        ("weights", 1, 2),
        ("weights", 2, 2),
    ]


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [("broken", CheckpointError, "got 3 bytes"), ("dies", WorkerDiedError, "exit code 9")],
)
def test_loading_that_fails(model: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        WorkerHandle.spawn(fake_engine.settings(model))


def test_openmp_policy_is_set_in_the_worker_and_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    handle = WorkerHandle.spawn(fake_engine.settings())
    handle.open(open_request("a"))
    step(handle, "a", 0, prompt=f"environment {tmp_path / 'env'}").release()
    handle.shutdown()
    found = json.loads((tmp_path / "env").read_text())
    assert found["OMP_WAIT_POLICY"] == "passive"
    assert found["KMP_BLOCKTIME"] == "0"
    assert found["OMP_NUM_THREADS"] == "1"
    assert "KMP_BLOCKTIME" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "7"
