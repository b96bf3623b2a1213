"""Digests of chunks in exact mode, for the world file: taken beside the world, in threads.

A chunk's memory is held until its digest is there: a few milliseconds.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from worldline.core.walk import Stepped, frames_digest
from worldline.runtime.handle import StepResult
from worldline.server.history import History
from worldline.server.live.flight import Flight
from worldline.server.waiting import in_thread, stop


class Hashing:
    """Of one open world."""

    def __init__(self, history: History, pool: Executor) -> None:
        self._history = history
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, flight: Flight, result: StepResult, made: Stepped) -> None:
        """Take the digest of what `flight` has just brought."""
        flight.hold()
        task = asyncio.create_task(self._hash(flight.place, result, made))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Here and not in the task: one that is cancelled before its first step never runs a line.
        task.add_done_callback(lambda _: flight.let_go())

    async def settle(self) -> None:
        """Return once every digest so far is in the history."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Return when no thread reads pixels any more."""
        await stop(*self._tasks)

    async def _hash(self, place: int, result: StepResult, made: Stepped) -> None:
        frames = result.frames
        digest = await in_thread(self._pool, lambda: frames_digest(frames))
        self._history.hashed(place, made, digest)
