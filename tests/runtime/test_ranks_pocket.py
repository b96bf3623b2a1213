"""Two real ranks on the pocket world: the pictures of one process, and what a killed rank leaves.

Set WORLDLINE_KILL_RANKS=20 to kill or stop a rank so often, at moments of chance, and print how
long sessions waited for their error and the next one for its first picture.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import worldline
from tests.runtime.fake_engine import shared_names
from tests.runtime.test_parent_exit import assert_gone
from tests.runtime.test_ranks import meetings
from worldline.bench.quality import psnr
from worldline.core.errors import WorkerDiedError
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import OpenRequest, StepRequest, WorkerSettings
from worldline.runtime.supervisor import FIRST_PAUSE_S, SupervisedHandle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

PROMPT = "a castle on a hill"
TIMES = int(os.environ.get("WORLDLINE_KILL_RANKS", "0"))
SETTINGS = WorkerSettings(model="pocket", threads=1, devices=("cpu", "cpu"))
CHUNKS = 3


def picture() -> NDArray[np.uint8]:
    """A start picture with something in it, uint8 `H W 3`."""
    y, x = np.mgrid[0:96, 0:160]
    return np.stack([x, y * 2, (x * y) % 256], axis=-1).astype(np.uint8)


class Rig:
    """A supervised worker of two ranks, and all that came after it."""

    def __init__(self) -> None:
        self.workers = [WorkerHandle.spawn(SETTINGS)]
        self.ready = threading.Semaphore(0)
        self.stop = threading.Event()
        self.handle = SupervisedHandle(
            self.workers[0],
            self._start,
            pause=lambda _: self.stop.wait(FIRST_PAUSE_S),  # each as if it were the first for long
            on_restart=self.ready.release,
        )

    def _start(self) -> WorkerHandle:
        self.workers.append(WorkerHandle(SETTINGS))
        return self.workers[-1]

    def open(self, name: str) -> None:
        image = picture()
        self.handle.open(
            OpenRequest(
                session_id=name,
                image=image.tobytes(),
                image_width=image.shape[1],
                image_height=image.shape[0],
                prompt=PROMPT,
            )
        )

    def step(self, name: str, index: int) -> NDArray[np.uint8]:
        actions = (("w", "l"),) * self.handle.info.chunk
        request = StepRequest(session_id=name, chunk_index=index, actions=actions)
        with self.handle.step(request) as result:
            return result.frames.copy()

    def walk(self, name: str, begun: queue.SimpleQueue[int]) -> tuple[WorkerDiedError, float]:
        """Step until the worker dies; the error, and when it came."""
        index = 0
        while True:
            try:
                self.step(name, index)
            except WorkerDiedError as error:
                return error, time.monotonic()
            index += 1
            begun.put(index)


@pytest.fixture(scope="module")
def rig() -> Generator[Rig]:
    """Afterwards nothing is left of any worker there was."""
    made = Rig()
    yield made
    made.stop.set()
    made.handle.shutdown()
    for worker in made.workers:
        for pid in worker.pids:
            assert_gone(pid)
    assert not shared_names()
    assert not meetings(os.getpid())


class Walker(threading.Thread):
    """A session under load, in a thread of its own."""

    def __init__(self, rig: Rig, name: str) -> None:
        super().__init__()
        self._rig, self.session = rig, name
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.error: WorkerDiedError | None = None
        self.at = 0.0
        rig.open(name)

    def run(self) -> None:
        self.error, self.at = self._rig.walk(self.session, self.begun)


def strike(rig: Rig, how: signal.Signals, rank: int) -> tuple[list[Walker], float]:
    """Two sessions under load when something happens to a rank; they and when it was."""
    walkers = [Walker(rig, name) for name in "ab"]
    for walker in walkers:
        walker.start()
    for walker in walkers:  # both are under way
        walker.begun.get(timeout=60)
    struck = time.monotonic()
    os.kill(rig.workers[-1].pids[rank], how)
    for walker in walkers:
        walker.join()
        rig.handle.close(walker.session)
    return walkers, struck


def test_the_pictures_of_one_process(rig: Rig) -> None:
    rig.open("alone")
    shared = [rig.step("alone", i) for i in range(CHUNKS)]
    rig.handle.close("alone")
    world = worldline.load("pocket", threads=1)
    with world.start(picture(), PROMPT) as session:
        for frames in shared:
            alone = session.step((("w", "l"),) * session.chunk).frames
            assert psnr(frames, alone) >= 60


def test_a_rank_killed_under_load_ends_its_sessions_and_nothing_else(rig: Rig) -> None:
    walkers, _ = strike(rig, signal.SIGKILL, 1)
    for walker in walkers:
        assert walker.error is not None and walker.error.retryable
        assert walker.error.got == "rank 1: signal SIGKILL"
    assert rig.ready.acquire(timeout=60)
    rig.open("next")
    assert rig.step("next", 0).any()
    rig.handle.close("next")
    assert rig.handle.counts().sessions == 0


@pytest.mark.skipif(not TIMES, reason="set WORLDLINE_KILL_RANKS to a number of times")
@pytest.mark.timeout(3600)
def test_killed_and_stopped_at_any_moment(rig: Rig) -> None:
    chance = random.Random(0)
    told: dict[str, list[float]] = {"SIGKILL": [], "SIGSTOP": []}
    back: list[float] = []
    for turn in range(TIMES):
        how = (signal.SIGKILL, signal.SIGSTOP)[turn % 2]
        time.sleep(chance.uniform(0, 0.5))  # any moment of a chunk
        walkers, struck = strike(rig, how, chance.randrange(2))
        told[how.name] += [walker.at - struck for walker in walkers]
        assert rig.ready.acquire(timeout=120)
        rig.open("next")
        assert rig.step("next", 0).any()
        back.append(time.monotonic() - struck)
        rig.handle.close("next")
        assert rig.handle.counts().sessions == 0
    for name, waited in told.items():
        print(f"{name}: error after at most {max(waited):.2f} s, median {np.median(waited):.2f} s")
    print(f"next session: its first chunk after at most {max(back):.2f} s, the pause included")
    memory = Path("/dev/shm")
    assert not memory.is_dir() or not shared_names()
