"""The engine handle as the event loop sees it: the same calls, awaited in threads to their end."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import Executor

from worldline.core.chunk import Decoded
from worldline.core.config import WorldInfo
from worldline.runtime.film_calls import FilmCall, FilmTurn
from worldline.runtime.handle import EngineHandle, OnFrames, StepResult
from worldline.runtime.protocol import (
    Counts,
    OpenReply,
    OpenRequest,
    RewoundReply,
    SavedReply,
    StepRequest,
)
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

    def lane(self, session_id: str) -> int:
        """Which replica has a session, or will; see `EngineHandle.lane`."""
        return self._handle.lane(session_id)

    def alive(self) -> bool:
        """Whether calls can succeed."""
        return self._handle.alive()

    def revives(self) -> bool:
        """Whether calls may succeed again after the worker has died."""
        return self._handle.revives()

    def end(self) -> None:
        """End the worker, whatever it does; what waits for it fails. Blocks, from any thread."""
        self._handle.shutdown()

    async def open(self, request: OpenRequest) -> OpenReply:
        """Start a session."""
        return await in_thread(self._pool, functools.partial(self._handle.open, request))

    async def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """Generate one chunk; the caller owns the result and must release it.

        `on_frames` is called on the event loop with each latent frame's pictures as they are
        decoded, all of them before this returns. They are valid until the result is released; when
        the step fails after all, for as long as they are looked at. It must not raise.
        """
        loop = asyncio.get_running_loop()

        def forward(decoded: Decoded) -> None:
            assert on_frames is not None
            loop.call_soon_threadsafe(on_frames, decoded)

        call = functools.partial(
            self._handle.step, request, on_frames=None if on_frames is None else forward
        )
        return await in_thread(self._pool, call, abandon=_release)

    def abort(self, session_id: str) -> bool:
        """Ask the running step of a session to end early; see `EngineHandle.abort`. Never blocks.

        The step then raises AbortedError, or succeeds after all: wait for it either way.
        """
        return self._handle.abort(session_id)

    async def park(self, session_id: str) -> None:
        """Move a session's state to host memory; its next step, or `unpark`, brings it back."""
        await in_thread(self._pool, functools.partial(self._handle.park, session_id))

    async def unpark(self, session_id: str) -> None:
        """Move a session's state back to the device."""
        await in_thread(self._pool, functools.partial(self._handle.unpark, session_id))

    async def reset(self, session_id: str, seed: int | None = None) -> None:
        """Back to the start picture, the first prompt and chunk 0; None keeps the seed."""
        await in_thread(self._pool, functools.partial(self._handle.reset, session_id, seed))

    async def snapshot(self, session_id: str, path: str) -> SavedReply:
        """Write a session as it stands to a file; steps may be made meanwhile."""
        call = functools.partial(self._handle.snapshot, session_id, path)
        return await in_thread(self._pool, call)

    async def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """Go back to before `chunk` of the walk."""
        return await in_thread(
            self._pool, functools.partial(self._handle.rewind, session_id, chunk)
        )

    async def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """Another session that stands where this one does, or before `chunk`."""
        call = functools.partial(self._handle.branch, session_id, new_id, chunk)
        return await in_thread(self._pool, call)

    async def film(self, call: FilmCall) -> FilmTurn:
        """One call of a film: begin it, one turn of the device, or its end."""
        return await in_thread(self._pool, functools.partial(self._handle.film, call))

    async def counts(self) -> Counts:
        """What the engine holds now."""
        return await in_thread(self._pool, self._handle.counts)

    async def close(self, session_id: str) -> None:
        """Return once the engine holds nothing of the session."""
        await in_thread(self._pool, functools.partial(self._handle.close, session_id))


def _release(result: StepResult) -> None:
    result.release()
