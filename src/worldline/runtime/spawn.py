"""Starts the worker's processes with the environment torch must find when it loads."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

from worldline.core.env import openmp_policy
from worldline.runtime.progress import Cells, board
from worldline.runtime.protocol import WorkerSettings
from worldline.runtime.worker import Seat, main

_ENVIRON_LOCK = threading.Lock()  # the environment is one per process; starts must not overlap


class Started(NamedTuple):
    """Processes by rank, the parent's end of each one's pipe, and what all of them share.

    `meeting` is the folder in which several find each other, to be removed with them.
    """

    processes: list[SpawnProcess]
    pipes: list[Connection]
    board: Cells
    meeting: str | None


def start_ranks(settings: WorkerSettings) -> Started:
    """Start a process for every rank.

    The child's OpenMP variables must exist before torch is loaded there, hence in our own
    environment while it starts. SIGINT and SIGTERM are blocked in the child: Ctrl-C and service
    managers signal the whole group, but the parent decides when the worker ends (by SIGKILL, or by
    being gone: the pipe ends).
    """
    size = settings.ranks
    cells = board(size)
    meeting = tempfile.mkdtemp(prefix=f"worldline-ranks-{os.getpid()}-") if size > 1 else None
    feeds = [multiprocessing.Pipe(duplex=False) for _ in range(1, size)]
    started = Started([], [], cells, meeting)
    try:
        with _environment(openmp_policy(settings.threads) | _network(size)), _signals_blocked():
            for rank in range(size):
                feed = [into for _, into in feeds] if rank == 0 else [feeds[rank - 1][0]]
                _start(settings, started, feed)
    except BaseException:
        for process in started.processes:
            process.kill()
        if meeting is not None:
            shutil.rmtree(meeting, ignore_errors=True)
        raise
    finally:
        for end in itertools.chain.from_iterable(feeds):
            end.close()
    return started


def _start(settings: WorkerSettings, started: Started, feed: list[Connection]) -> None:
    """The next rank."""
    rank, context = len(started.processes), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=True)
    seat = Seat(rank, theirs, feed, started.board, started.meeting)
    name = "worldline-worker" if rank == 0 else f"worldline-rank-{rank}"
    process = context.Process(target=main, args=(settings, seat), name=name, daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the worker does
    started.processes.append(process)
    started.pipes.append(ours)


def _network(ranks: int) -> dict[str, str]:
    """Ranks of one machine speak over its loopback, which nobody else can reach."""
    name = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    wanted = {} if ranks == 1 or name is None else {"GLOO_SOCKET_IFNAME": name}
    return {key: value for key, value in wanted.items() if key not in os.environ}


def pid_of(process: SpawnProcess) -> int:
    """The id of a process that was started."""
    assert process.pid is not None, "it was not started"
    return process.pid


def describe_exit(code: int | None) -> str:
    """An exit code in words, for error messages."""
    if code is None:
        return "no exit code"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    with _ENVIRON_LOCK:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Starting Python's resource tracker, which `start` does if need be, would unblock them again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
