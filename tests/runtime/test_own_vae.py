"""A worker whose last rank is the autoencoder's: the pocket world over real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import worldline
from tests import tiny
from worldline.core.errors import WorkerDiedError
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import OpenRequest, StepRequest, WorkerSettings

CHUNKS = 3
APART = WorkerSettings(model="pocket", threads=1, devices=("cpu", "cpu"), own_vae=True)


def opening(name: str) -> OpenRequest:
    image = tiny.picture()
    height, width, _ = image.shape
    return OpenRequest(
        session_id=name,
        image=image.tobytes(),
        image_width=width,
        image_height=height,
        prompt="a place",
        seed=7,
    )


def walk(handle: WorkerHandle, name: str) -> list[NDArray[np.uint8]]:
    handle.open(opening(name))
    frames: list[NDArray[np.uint8]] = []
    for i in range(CHUNKS):
        request = StepRequest(session_id=name, chunk_index=i, actions=(("w",),))
        with handle.step(request) as result:
            frames.append(result.frames.copy())
    handle.close(name)
    return frames


@pytest.fixture(scope="module")
def apart() -> Iterator[WorkerHandle]:
    handle = WorkerHandle.spawn(APART)
    yield handle
    handle.shutdown()


def test_the_same_pictures_as_one_process(apart: WorkerHandle) -> None:
    with worldline.load("pocket", device="cpu", threads=1).start(
        tiny.picture(), "a place", 7
    ) as session:
        alone = [session.step([("w",)]).frames for _ in range(CHUNKS)]
    for name in ("a", "b"):
        found = walk(apart, name)
        assert all(np.array_equal(x, y) for x, y in zip(found, alone, strict=True))


@pytest.mark.skipif("WORLDLINE_KILL_RANKS" not in os.environ, reason="set WORLDLINE_KILL_RANKS")
def test_when_its_rank_hangs_sessions_are_told() -> None:
    handle = WorkerHandle.spawn(APART)
    try:
        walk(handle, "a")
        handle.open(opening("b"))
        os.kill(handle.pids[1], signal.SIGSTOP)
        with pytest.raises(WorkerDiedError, match="did not get on"):
            for i in range(1000):
                with handle.step(StepRequest(session_id="b", chunk_index=i, actions=(("w",),))):
                    pass
    finally:
        handle.shutdown()


def test_when_its_rank_dies_sessions_are_told(apart: WorkerHandle) -> None:
    apart.open(opening("c"))
    os.kill(apart.pids[1], signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="rank 1: signal SIGKILL"):
        for i in range(1000):
            with apart.step(StepRequest(session_id="c", chunk_index=i, actions=(("w",),))):
                pass
    assert not any(os.path.exists(f"/proc/{pid}") for pid in apart.pids)
