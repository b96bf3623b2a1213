"""What the server needs of an engine, whoever keeps it: one worker, a supervised one, a fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from worldline.core.chunk import Decoded
from worldline.core.config import WorldInfo
from worldline.runtime.film_calls import FilmCall, FilmTurn
from worldline.runtime.protocol import (
    Counts,
    OpenReply,
    OpenRequest,
    RewoundReply,
    SavedReply,
    StepRequest,
)
from worldline.runtime.results import StepResult

OnFrames = Callable[[Decoded], None]


class EngineHandle(Protocol):
    """What the server needs of an engine. All calls block and are thread-safe."""

    @property
    def info(self) -> WorldInfo:
        """The loaded model."""
        ...

    def open(self, request: OpenRequest) -> OpenReply:
        """Start a session, or open one at a snapshot's place.

        Raises: InputError of any kind (SnapshotError, OtherWeightsError for a snapshot),
        CapacityError, WorkerDiedError.
        """
        ...

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """Generate the next chunk of a session; a parked one comes back first.

        `on_frames` is called in this thread with each latent frame's pictures as they are decoded,
        all of them before the result is returned. They are views into the result's memory: valid
        until its `release()`; should the step fail after all, for as long as anyone has them.
        Raises: SessionMissingError (unknown session, or not its next chunk), ControlError,
        PromptError, AbortedError, CapacityError (no frame slot was given back in time, or no memory
        here or on the device), GenerationError, WorkerDiedError.
        """
        ...

    def abort(self, session_id: str) -> bool:
        """Ask the running step of a session to end at its next pass, with `AbortedError`.

        Returns at once: False when no step is on its way. The step may still succeed: once its
        first frames were handed on, or its last pass has begun, it goes to its end. What was
        aborted leaves the session as it was: the same chunk can be asked for again.
        """
        ...

    def park(self, session_id: str) -> None:
        """Move a session's state to host memory; its place on the device is free for others.

        Raises: SessionMissingError, WorkerDiedError, CapacityError.
        """
        ...

    def unpark(self, session_id: str) -> None:
        """Move it back, as the next step would. Raises: as `park`."""
        ...

    def reset(self, session_id: str, seed: int | None = None) -> None:
        """Back to the start picture, the first prompt and chunk 0; None keeps the seed.

        From here on it gives what a new session of that seed gives. Raises: as `park`.
        """
        ...

    def snapshot(self, session_id: str, path: str) -> SavedReply:
        """Write a session as it stands to a file, bit for bit, for `OpenRequest.snapshot`.

        The session may be stepped while it is written. Raises: as `park`, and SnapshotError where
        it cannot be written.
        """
        ...

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """Go back to before `chunk` of the walk; the next step makes that chunk.

        Raises: as `park`, and SnapshotError for a place that is not kept.
        """
        ...

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """Another session of ours that stands where this one does, or before `chunk`.

        Raises: as `rewind`, and SessionError when there is a session `new_id`.
        """
        ...

    def film(self, call: FilmCall) -> FilmTurn:
        """One call of a film, see `runtime.film_calls`; pictures are the caller's own.

        Raises: SessionMissingError, WorkerDiedError, and what `runtime.films` raises.
        """
        ...

    def counts(self) -> Counts:
        """What the engine holds now. Raises: WorkerDiedError."""
        ...

    def close(self, session_id: str) -> None:
        """Return once the engine holds nothing of the session; unknown sessions are ignored."""
        ...

    def lane(self, session_id: str) -> int:
        """Which of its replicas has a session, or will; those work at the same time. Never blocks.

        One that works for all sessions, one after the other, says 0.
        """
        ...

    def alive(self) -> bool:
        """Whether calls can succeed."""
        ...

    def revives(self) -> bool:
        """Whether calls may succeed again after they could not: another worker is started."""
        ...

    def shutdown(self) -> None:
        """End the engine; idempotent."""
        ...
