"""Waiting that tests can control, and calls into threads that are never left behind.

A thread cannot be cancelled. So a task that is cancelled while a thread works for it waits for that
thread, hands what came out to `abandon`, and only then lets the cancellation through: whatever is
cleaned up afterwards has nobody working on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from worldline.core.clock import Clock, MonotonicClock

R = TypeVar("R")


class AsyncClock(Clock, Protocol):
    """A clock that can also be slept on."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed on this clock."""
        ...


class LoopClock(MonotonicClock):
    """Real time on the running event loop."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


async def within(clock: AsyncClock, seconds: float, work: Coroutine[Any, Any, R]) -> R:
    """The result of `work`, which is cancelled after `seconds` on `clock`.

    Raises: TimeoutError when the time is up first.
    """
    task, timer = asyncio.create_task(work), asyncio.create_task(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError(f"not done within {seconds:g} s")
        return task.result()
    finally:
        await stop(task, timer)


async def change(clock: AsyncClock, seconds: float | None, changed: asyncio.Event) -> None:
    """Return once `changed` is set from now on, or after `seconds` on `clock`; None: no limit."""
    changed.clear()
    if seconds is None:
        await changed.wait()
        return
    with suppress(TimeoutError):
        await within(clock, seconds, changed.wait())


async def stop(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until all have ended, however often the caller is cancelled itself.

    Their done-callbacks have run too. Their exceptions are taken as seen; a cancellation of the
    caller is raised again at the end.
    """
    live = [task for task in tasks if task is not None]
    for task in live:
        task.cancel()
    cancelled = await _settle(live)
    try:
        # The callbacks of a task that has just ended are due in the coming pass of the loop.
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        cancelled = error
    for task in live:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled


async def in_thread(
    pool: Executor,
    call: Callable[[], R],
    *,
    abandon: Callable[[R], None] | None = None,
) -> R:
    """`call()` in a thread of `pool`, awaited to its end even if this task is cancelled meanwhile.

    A result nobody waits for any more goes to `abandon` before the cancellation is raised.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _settle([future])
        if not future.cancelled() and future.exception() is None and abandon is not None:
            abandon(future.result())
        raise


async def _settle(futures: Sequence[asyncio.Future[Any]]) -> asyncio.CancelledError | None:
    """Wait until all are done; a cancellation that came meanwhile is returned, not raised."""
    cancelled: asyncio.CancelledError | None = None
    while pending := {future for future in futures if not future.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
