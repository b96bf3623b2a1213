"""How much of a chunk is spent outside the operators: the loop's own cost, and gaps on a GPU.

Read from torch's profiler over a few chunks. The profiler's own cost falls mostly outside the
operators, so the share found is an upper bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch.autograd.profiler import profile

Interval = tuple[int, int]
MS = 1e-6  # milliseconds of a nanosecond


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """Medians per chunk, under the profiler. Milliseconds; percents are of `chunk_ms`.

    `operators` is how many operators Python calls, `operators_ms` the time inside them, and
    `outside_percent` the rest: Python, and the profiler. On a GPU `device_busy_ms` is the time at
    least one kernel or copy runs, and `device_idle_percent` the rest: waits for launches.
    """

    chunks: int
    chunk_ms: float
    operators: int
    operators_ms: float
    outside_percent: float
    device_busy_ms: float | None = None
    device_idle_percent: float | None = None


def measure_overhead(step: Callable[[], object], *, chunks: int, cuda: bool) -> Overhead:
    """Profile `chunks` calls of `step`, each of which generates one chunk."""
    found = [_profiled(step, cuda=cuda) for _ in range(chunks)]
    wall, calls, inside, busy = (np.array(column) for column in zip(*found, strict=True))
    return Overhead(
        chunks=chunks,
        chunk_ms=round(float(np.median(wall)), 3),
        operators=int(np.median(calls)),
        operators_ms=round(float(np.median(inside)), 3),
        outside_percent=_rest(inside, wall),
        device_busy_ms=round(float(np.median(busy)), 3) if cuda else None,
        device_idle_percent=_rest(busy, wall) if cuda else None,
    )


def _rest(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    return round(float(np.median(100 * (1 - part / whole))), 2)


def _profiled(step: Callable[[], object], *, cuda: bool) -> tuple[float, int, float, float]:
    """Of one chunk: wall ms, operators called, ms inside them, ms the GPU was busy."""
    profiler = profile(use_device="cuda" if cuda else None)
    with profiler:
        start = time.perf_counter()
        step()
        wall = (time.perf_counter() - start) * 1000
    results = profiler.kineto_results
    assert results is not None, "the profiler has ended"
    events: Sequence[Any] = results.events()
    host = [_interval(e) for e in events if e.name().startswith("aten::")]
    device = [_interval(e) for e in events if e.device_type().name != "CPU"]
    inside, calls = union(host)
    return wall, calls, inside * MS, union(device)[0] * MS


def _interval(event: Any) -> Interval:
    return event.start_ns(), event.start_ns() + event.duration_ns()


def union(intervals: Iterable[Interval]) -> tuple[int, int]:
    """Length of the union of intervals, what overlaps once, and of how many outer ones it is."""
    total = outer = 0
    reached: int | None = None
    for start, end in sorted(intervals, key=lambda pair: (pair[0], -pair[1])):
        if reached is None or start >= reached:
            outer += 1
        if reached is None or end > reached:
            total += end - (start if reached is None else max(start, reached))
            reached = end
    return total, outer
