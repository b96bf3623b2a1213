"""Readiness: nobody is served before the real chunk path has run, at every cache fill level."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from worldline.core.errors import CapacityError, WorkerDiedError
from worldline.runtime.handle import enough_chunks, grey, turning
from worldline.runtime.protocol import OpenReply
from worldline.server.engine import AsyncEngine
from worldline.server.logs import log
from worldline.server.waiting import AsyncClock, stop, within

logger = logging.getLogger("worldline.server")

REVIVAL_S = 0.5  # how often it is looked whether another worker has come


class State(enum.Enum):
    """Warming goes to ready or to failed, and stays there until another worker comes."""

    WARMING = "warming up"
    READY = "ready"
    FAILED = "failed"


class Readiness:
    """Whether the warm-up has run, and why not."""

    def __init__(self) -> None:
        self.state = State.WARMING
        self.reason = State.WARMING.value
        self._decided = asyncio.Event()
        self._heirs: list[Callable[[], None]] = []

    def begin_again(self) -> None:
        """Another worker is there, and cold."""
        self.state, self.reason = State.WARMING, State.WARMING.value
        self._decided.clear()

    def tell_when_decided(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever a warm-up has ended, well or not."""
        self._heirs.append(tell)

    def decide(self, state: State, reason: str) -> None:
        """End the warm-up as ready or failed."""
        assert self.state is State.WARMING, f"readiness was decided before: {self.state}"
        self.state, self.reason = state, reason
        self._decided.set()
        for tell in self._heirs:
            tell()

    async def wait(self, clock: AsyncClock, limit_s: float) -> None:
        """Return once ready. Raises: CapacityError after `limit_s`, or when the warm-up failed."""
        try:
            await within(clock, limit_s, self.decided())
        except TimeoutError:
            raise CapacityError(
                "the server is still warming up", expected=f"ready within {limit_s:g} s"
            ) from None
        if self.state is not State.READY:
            raise CapacityError("the server cannot serve", got=self.reason)

    async def decided(self) -> None:
        """Return once the warm-up has ended, well or not."""
        await self._decided.wait()


class Revivals:
    """A bell between the thread that starts workers and the event loop, which may not run yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hear: Callable[[], None] | None = None

    def tell(self) -> None:
        """Another worker is ready; from any thread. Nothing when nobody listens."""
        with self._lock:
            if self._hear is not None:
                self._hear()

    @contextmanager
    def heard(self, call: Callable[[], None]) -> Generator[None]:
        """Meanwhile, `call` is called in the running event loop for every new worker."""
        loop = asyncio.get_running_loop()

        def hear() -> None:
            loop.call_soon_threadsafe(call)

        with self._lock:
            self._hear = hear
        try:
            yield
        finally:
            with self._lock:
                self._hear = None


class WarmUp:
    """Warms up the first worker, and every one that comes after it; `stop` ends that."""

    def __init__(self, readiness: Readiness, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._readiness = readiness
        self._work = work
        self._task = asyncio.create_task(work())

    def again(self) -> None:
        """Another worker is there. A warm-up that still runs has begun again by itself."""
        if self._task.done():
            self._readiness.begin_again()
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Return once no warm-up runs."""
        await stop(self._task)


async def warm_up(
    engine: AsyncEngine,
    readiness: Readiness,
    *,
    clock: AsyncClock,
    chunks: int,
    sessions: int = 1,
) -> None:
    """Walk a grey picture for `chunks` chunks, then decide readiness; 0 lets the model decide.

    Up to `sessions` walks go on together, where what each leaves behind serves a visitor later.
    """
    start = clock.now()
    try:
        steps = await _walk_until_done(engine, chunks, sessions, clock=clock)
    except Exception as error:  # whatever it is, nobody will ever be served: say so
        logger.exception("warm-up failed")
        readiness.decide(State.FAILED, f"warm-up failed: {error}")
        return
    seconds = round(clock.now() - start, 3)
    log(logger, logging.INFO, "ready", model=engine.info.model, chunks=steps, seconds=seconds)
    readiness.decide(State.READY, State.READY.value)


async def _walk_until_done(
    engine: AsyncEngine, chunks: int, sessions: int, *, clock: AsyncClock
) -> int:
    """Walk, and begin again with the next worker if one dies under it; returns the chunks."""
    while True:
        try:
            return await _walk(engine, chunks, min(sessions, engine.info.rings))
        except WorkerDiedError:
            if not engine.revives():
                raise
        while not engine.alive():
            await clock.sleep(REVIVAL_S)


async def _walk(engine: AsyncEngine, chunks: int, sessions: int) -> int:
    if not engine.info.live:
        return 0  # films only: what they need is made with the first of them
    count = chunks or enough_chunks(engine.info)
    requests = [grey(engine.info, seed=seed) for seed in range(sessions)]
    try:
        opened = [await engine.open(request) for request in requests]
        for index in range(count):
            if engine.info.replicas > 1:  # which work at the same time
                await asyncio.gather(*(_step(engine, session, index) for session in opened))
            else:
                for session in opened:
                    await _step(engine, session, index)
    finally:
        for request in requests:
            await engine.close(request.session_id)
    return count


async def _step(engine: AsyncEngine, opened: OpenReply, index: int) -> None:
    result = await engine.step(turning(opened, index))
    result.release()
