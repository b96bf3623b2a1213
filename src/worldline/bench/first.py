"""The first chunk of a visitor who comes to a warm worker: what it costs beyond its own compute.

Two visitors with the same picture, prompt and seed, one after the other: the second shows what
keeping first chunks saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from worldline.core.chunk import StageTimings
    from worldline.runtime.engine import Session


class FirstChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. `open_ms` opens the session, `chunk_ms` makes its first chunk.

    `compute_ms` are that chunk's stages together, on a GPU by its own clock; `over_compute` is
    opening and chunk by it. `again_ms` opens and makes an equal start's first chunk.
    """

    open_ms: float
    chunk_ms: float
    compute_ms: float
    over_compute: float
    again_ms: float


class _Visit(NamedTuple):
    opened: float  # ms
    made: float  # ms
    compute: float  # ms


def measure_first(open_session: Callable[[], Session]) -> FirstChunk:
    """Let two visitors in whose sessions `open_session` opens, alike in everything."""
    first, again = _visit(open_session), _visit(open_session)
    return FirstChunk(
        open_ms=round(first.opened, 2),
        chunk_ms=round(first.made, 2),
        compute_ms=round(first.compute, 2),
        over_compute=round((first.opened + first.made) / max(first.compute, 1e-6), 3),
        again_ms=round(again.opened + again.made, 2),
    )


def _visit(open_session: Callable[[], Session]) -> _Visit:
    start = time.perf_counter()
    with open_session() as session:
        opened = time.perf_counter()
        chunk = session.step([("w",)] * session.chunk)
        made = time.perf_counter()
        session.prepare()  # keeps the first chunk
    compute = _stages(chunk.timings)
    return _Visit((opened - start) * 1000, (made - opened) * 1000, compute)


def _stages(timings: StageTimings) -> float:
    return sum(msgspec.structs.astuple(timings)) - timings.total_ms
