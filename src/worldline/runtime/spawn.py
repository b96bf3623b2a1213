"""Starts the worker process with the environment torch must find when it loads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from worldline.core.env import openmp_policy
from worldline.runtime.protocol import WorkerSettings
from worldline.runtime.worker import main

_ENVIRON_LOCK = threading.Lock()  # the environment is one per process; starts must not overlap


def start_worker(settings: WorkerSettings) -> tuple[SpawnProcess, Connection]:
    """Start the process; returns it with the parent's end of the pipe.

    The child's OpenMP variables must exist before torch is loaded there, hence in our own
    environment while it starts. SIGINT and SIGTERM are blocked in the child: Ctrl-C and service
    managers signal the whole group, but the parent decides when the worker ends (by SIGKILL, or by
    being gone: the pipe ends).
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(
        target=main, args=(settings, theirs), name="worldline-worker", daemon=True
    )
    with _environment(openmp_policy(settings.threads)), _signals_blocked():
        process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return process, ours


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
