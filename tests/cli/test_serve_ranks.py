"""`serve --sp 2` as a user runs it: the pictures of one process, a killed rank, nothing left.

Takes the better part of a minute: set WORLDLINE_KILL_RANKS to any number to run it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import worldline
from tests.runtime.fake_engine import shared_names
from tests.runtime.test_parent_exit import assert_gone
from tests.runtime.test_ranks import meetings
from tests.runtime.test_ranks_pocket import PROMPT, TIMES, picture
from worldline.bench.quality import psnr
from worldline.client import Client
from worldline.client.options import WorldOptions
from worldline.core.motion import MOTIONLESS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for ranks in /proc"),
    pytest.mark.skipif(not TIMES, reason="set WORLDLINE_KILL_RANKS to a number of times"),
    pytest.mark.timeout(600),
]

RUN = "import sys; from worldline.cli.main import main; sys.exit(main())"


@contextmanager
def serving(*options: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A `serve` process on the CPU, and its address."""
    command = [sys.executable, "-c", RUN, "serve", "--device", "cpu", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert " is at http://" in line
        yield process, line.split()[3]
    finally:
        process.kill()
        process.communicate()


def ranks_of(pid: int) -> list[int]:
    """The children that hold a model."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    ids = [int(name) for file in children for name in _read(file).split()]
    return [i for i in ids if b"spawn_main" in _read(Path(f"/proc/{i}/cmdline"))]


def _read(file: Path) -> bytes:
    """Nothing of a thread or process that has ended since it was listed."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def walked(address: str, chunks: int, *, kill: int | None = None) -> NDArray[np.uint8]:
    """All frames of a world that stands still, `F H W 3`; `kill` dies when the first is there."""
    options = WorldOptions(seed=7, format="raw", max_chunks=chunks)
    frames: list[NDArray[np.uint8]] = []
    with Client(address).world(picture(), PROMPT, options=options, realtime=False) as w:
        for frame in w.frames():
            if kill is not None and not frames:
                os.kill(kill, signal.SIGKILL)
            frames.append(frame.pixels)
    return np.stack(frames)


def alone(chunks: int) -> NDArray[np.uint8]:
    """The same, here."""
    world = worldline.load("pocket", threads=1)
    with world.start(picture(), PROMPT, 7) as session:
        still = (MOTIONLESS,) * session.chunk
        return np.concatenate([session.step(still).frames for _ in range(chunks)])


def test_two_ranks_serve_what_one_process_makes() -> None:
    with serving("--sp", "2") as (process, address):
        ranks = ranks_of(process.pid)
        assert len(ranks) == 2
        served, made = walked(address, 4), alone(4)
        assert served.shape == made.shape
        for i, (one, other) in enumerate(zip(served, made, strict=True)):
            assert psnr(one[None], other[None]) >= 60, f"frame {i}"
        whole, killed = len(walked(address, 6)), len(walked(address, 6, kill=ranks[1]))
        assert whole <= killed <= whole + 4, "at most one chunk is seen twice"
        again = ranks_of(process.pid)
        assert len(again) == 2 and not set(again) & set(ranks)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        for pid in {*ranks, *again}:
            assert_gone(pid)
        assert not shared_names(process.pid) and not meetings(process.pid)


def test_two_replicas_serve_two_worlds_and_one_outlives_the_other() -> None:
    with serving("--replicas", "2", "--seats", "2") as (process, address):
        replicas = ranks_of(process.pid)
        assert len(replicas) == 2
        made = alone(4)
        for kill in (None, replicas[0], None):
            served = len(walked(address, 4, kill=kill))
            assert len(made) <= served <= len(made) + 4
        assert np.array_equal(walked(address, 4), made)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert not shared_names(process.pid)
