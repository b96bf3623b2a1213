"""What a session that has moved along its walk tells the other side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

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


class Journal:
    """How often sessions travelled, by kind, and the milliseconds that all of each took."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._ms: dict[str, float] = {}

    @property
    def totals(self) -> dict[str, int | float]:
        """As `Counts` has them."""
        return {**self._times, **{f"{kind}_ms": round(ms, 3) for kind, ms in self._ms.items()}}

    def timed(self, kind: str, pieces: Iterator[None]) -> Generator[None, None, Any]:
        """The same pieces, and what they give; counted when they have come to their end."""
        spent = 0.0
        try:
            while True:
                begun = time.perf_counter()
                try:
                    next(pieces)
                except StopIteration as end:
                    spent += time.perf_counter() - begun
                    self._times[kind] += 1
                    self._ms[kind] = self._ms.get(kind, 0.0) + spent * 1000
                    return end.value
                spent += time.perf_counter() - begun
                yield
        finally:
            close = getattr(pieces, "close", None)  # generators have one
            if close is not None:
                close()


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
