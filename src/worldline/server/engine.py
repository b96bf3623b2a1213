"""The engine handle as the event loop sees it: the same calls, awaited in threads to their end."""

from __future__ import annotations

import functools
from concurrent.futures import Executor

from worldline.core.config import WorldInfo
from worldline.runtime.handle import EngineHandle, StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest
from worldline.server.waiting import in_thread


class AsyncEngine:
    """Wraps an `EngineHandle`; raises what the handle raises.

    No call is abandoned: when the calling task is cancelled, the call still runs to its end before
    the cancellation goes on, and a chunk that nobody will send gives its memory back.
    """

    def __init__(self, handle: EngineHandle, pool: Executor) -> None:
        self._handle = handle
        self._pool = pool

    @property
    def info(self) -> WorldInfo:
        """The loaded model."""
        return self._handle.info

    def alive(self) -> bool:
        """Whether calls can succeed."""
        return self._handle.alive()

    async def open(self, request: OpenRequest) -> OpenReply:
        """Start a session."""
        return await in_thread(self._pool, functools.partial(self._handle.open, request))

    async def step(self, request: StepRequest) -> StepResult:
        """Generate one chunk; the caller owns the result and must release it."""
        call = functools.partial(self._handle.step, request)
        return await in_thread(self._pool, call, abandon=_release)

    async def close(self, session_id: str) -> None:
        """Return once the engine holds nothing of the session."""
        await in_thread(self._pool, functools.partial(self._handle.close, session_id))


def _release(result: StepResult) -> None:
    result.release()
