"""What a session that has moved along its walk tells the other side."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from worldline.runtime.engine_shape import EngineSession
from worldline.runtime.protocol import (
    OpenReply,
    Rebuilt,
    RewindRequest,
    RewoundReply,
    SavedReply,
    SnapshotRequest,
)

T = TypeVar("T")


def opened(
    session_id: str, session: EngineSession, *, fps: int, rebuilt: Rebuilt = ""
) -> OpenReply:
    """A session as it stands, however it came there."""
    return OpenReply(
        session_id=session_id,
        width=session.width,
        height=session.height,
        fps=fps,
        chunk=session.chunk,
        window=session.window,
        sink=session.sink,
        steps=session.steps,
        intrinsics=session.intrinsics,
        rig=session.rig,
        next_chunk=session.next_chunk,
        light=session.light_snapshot().encode(),
        rebuilt=rebuilt,
    )


def rewound(session: EngineSession, request: RewindRequest) -> Generator[None, None, RewoundReply]:
    """Go back, piece by piece."""
    rebuilt = yield from session.rewinding(request.chunk)
    return RewoundReply(
        session_id=request.session_id,
        chunk=session.next_chunk,
        light=session.light_snapshot().encode(),
        rebuilt=rebuilt,
    )


def written(session: EngineSession, request: SnapshotRequest) -> Generator[None, None, SavedReply]:
    """Write a snapshot; it is taken with the first piece."""
    chunk = session.next_chunk
    size = yield from session.writing(request.path)
    return SavedReply(session_id=request.session_id, path=request.path, bytes=size, chunk=chunk)


def at_once(pieces: Generator[None, None, T]) -> T:
    """All pieces, and what they give."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
