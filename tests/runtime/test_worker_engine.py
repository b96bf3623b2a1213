"""The real engine in a real worker: the frames that cross are those of a session here."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import worldline
from tests.runtime.fake_engine import held
from worldline.core.chunk import Decoded
from worldline.core.errors import AbortedError, ControlError, SessionMissingError
from worldline.core.motion import Motion, from_actions
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import (
    OpenRequest,
    Reply,
    Request,
    StepRequest,
    WorkerSettings,
)

SIZE = (160, 96)
WALKS = {
    "left": (("w",), ("w", "j"), ("j",), ()),
    "right": (("s",), ("d", "l"), ("i",), ("w", "d")),
}
PROMPTS = {"left": "a red hall", "right": "a garden at night"}
SWITCH = 2  # the chunk at which "left" gets another prompt


def picture(name: str) -> NDArray[np.uint8]:
    """A noisy start picture of one session."""
    noise = np.random.default_rng(len(name))
    return noise.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def prompt_at(name: str, index: int) -> str | None:
    """The prompt that chunk `index` switches to."""
    return "snow" if name == "left" and index == SWITCH else None


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    """A worker with random weights."""
    handle = WorkerHandle.spawn(WorkerSettings(model="pocket", random_weights=True, threads=1))
    yield handle
    handle.shutdown()


@pytest.fixture(scope="module")
def alone() -> dict[str, list[NDArray[np.uint8]]]:
    """The frames of each session when it has this process for itself."""
    frames: dict[str, list[NDArray[np.uint8]]] = {}
    for name, walk in WALKS.items():
        world = worldline.load("pocket", random_weights=True, threads=1)
        with world.start(picture(name), PROMPTS[name], 7) as session:
            frames[name] = [
                session.step([keys], prompt=prompt_at(name, i)).frames
                for i, keys in enumerate(walk)
            ]
    return frames


def open_session(worker: WorkerHandle, name: str) -> None:
    """Open the session in the worker."""
    worker.open(
        OpenRequest(
            session_id=name,
            image=picture(name).tobytes(),
            image_width=SIZE[0],
            image_height=SIZE[1],
            prompt=PROMPTS[name],
            seed=7,
        )
    )


def test_interleaved_sessions_give_the_frames_of_lone_ones(
    worker: WorkerHandle, alone: dict[str, list[NDArray[np.uint8]]]
) -> None:
    """Exact mode: same bits in another process, beside another session and failing calls."""
    for name in WALKS:
        open_session(worker, name)
    for i in range(len(WALKS["left"])):
        for name, walk in WALKS.items():
            bad = StepRequest(session_id=name, chunk_index=i, actions=(("x",),))
            with pytest.raises(ControlError, match="unknown action"):
                worker.step(bad)
            request = StepRequest(
                session_id=name, chunk_index=i, actions=(walk[i],), prompt=prompt_at(name, i)
            )
            with worker.step(request) as result:
                assert result.index == i
                assert np.array_equal(result.frames, alone[name][i])
                assert 0 < result.timings.denoise_ms < result.timings.total_ms
    for name in WALKS:
        worker.close(name)


def test_a_closed_session_is_gone_and_its_name_is_free(worker: WorkerHandle) -> None:
    open_session(worker, "left")
    worker.close("left")
    with pytest.raises(SessionMissingError):
        worker.step(StepRequest(session_id="left", chunk_index=0, actions=((),)))
    open_session(worker, "left")
    worker.close("left")


def test_the_worker_says_what_it_loaded(worker: WorkerHandle) -> None:
    info = worker.info
    assert (info.model, info.mode, info.threads) == ("pocket", "exact", 1)
    assert worker.pid != os.getpid()


def test_parked_aborted_and_streamed_sessions_walk_as_if_alone(
    worker: WorkerHandle, alone: dict[str, list[NDArray[np.uint8]]]
) -> None:
    """Two sessions on one worker, by motions: given up, parked and begun again on the way."""
    before = worker.counts()
    for name in WALKS:
        open_session(worker, name)
    for i in range(4):
        for name, walk in WALKS.items():
            request = StepRequest(
                session_id=name,
                chunk_index=i,
                motions=(from_actions(walk[i]),),
                prompt=prompt_at(name, i),
            )
            give_up(worker, request)
            parts: list[Decoded] = []
            with worker.step(request, on_frames=parts.append) as result:
                assert np.array_equal(result.frames, alone[name][i]), (name, i)
                assert [part.frames.shape for part in parts] == [result.frames.shape]
                assert parts[0].pose == result.poses[0]
            worker.park(name)
            counts = worker.counts()
            assert counts.parked - before.parked == 1 + (name == "right" or i > 0)
            assert counts.rings == before.rings + 2 - counts.parked + before.parked
    worker.reset("left")
    worker.unpark("right")
    with worker.step(
        StepRequest(session_id="left", chunk_index=0, actions=(WALKS["left"][0],))
    ) as result:
        assert np.array_equal(result.frames, alone["left"][0])
    for name in WALKS:
        worker.close(name)
    assert held(worker.counts()) == held(before)


def give_up(worker: WorkerHandle, request: StepRequest) -> None:
    """Ask for a chunk by other hands, and abort it the moment it is on its way."""
    other = msgspec.structs.replace(request, motions=(Motion(x=1.0, yaw=-1.0),), prompt="rain")
    send = worker._send

    def send_and_abort(body: Request, **given: Any) -> Future[Reply]:
        assert worker.abort(request.session_id), "it is on its way before it is sent"
        return send(body, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_send", send_and_abort)
        with pytest.raises(AbortedError):
            worker.step(other)
