"""How much of a chunk is spent outside the operators: the loop's own cost, and gaps on a GPU.

Torch's profiler sees the operators, but costs time itself, a little per recorded event. So chunks
are run with and without it by turns: what they differ by is the profiler's cost, spread evenly over
the events it recorded. Operators inside operators are charged to the outer ones and taken off
again; what is left of an undisturbed chunk is Python and torch's way from Python to the operator.
The fastest chunk of each kind counts: whatever else runs on the machine only makes one slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from torch.autograd.profiler import profile

Interval = tuple[int, int]
MS = 1e-6  # milliseconds of a nanosecond
GAP_NS = 5_000  # a wait of the GPU worth counting; back-to-back kernels are closer
WAITS = ("Synchronize", "cudaMemcpy")  # parts of the names of calls in which the host may wait
QUEUED = "Async"  # but not in these


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """Of the fastest chunk. Milliseconds; percents are of `chunk_ms`, which ran unprofiled.

    `operators` is how many operators Python calls, `operators_ms` the time inside them less the
    profiler's cost, `outside_percent` the rest. `profiled_ms` and `profiled_outside_percent` are
    the same chunk as the profiler shows it, an upper bound. On a GPU `device_busy_ms` is the time
    at least one kernel or copy runs, `device_idle_percent` the rest of the chunk, `launch_gaps` how
    often the GPU waited longer than 5 us and `longest_gap_ms` for how long at most, under the
    profiler; `host_waits_ms` is how long Python waited for the GPU, its idle time.
    """

    chunks: int
    chunk_ms: float
    operators: int
    operators_ms: float
    outside_percent: float
    profiled_ms: float
    profiled_outside_percent: float
    device_busy_ms: float | None = None
    device_idle_percent: float | None = None
    launch_gaps: int | None = None
    longest_gap_ms: float | None = None
    host_waits_ms: float | None = None


class Profiled(NamedTuple):
    """One chunk under the profiler, in ms: `events` recorded, of these `outer` called by Python."""

    wall: float
    events: int
    outer: int
    inside: float
    busy: float = 0.0
    gaps: tuple[float, ...] = ()
    waits: float = 0.0


def measure_overhead(step: Callable[[], object], *, chunks: int, cuda: bool) -> Overhead:
    """Run `step`, which generates one chunk, `chunks` times with the profiler and without."""
    plain, seen = [], []
    for _ in range(chunks):
        start = time.perf_counter()
        step()
        plain.append((time.perf_counter() - start) * 1000)
        seen.append(_profiled(step, cuda=cuda))
    return lean(min(plain), min(seen, key=lambda one: one.wall), chunks=chunks, cuda=cuda)


def lean(plain: float, seen: Profiled, *, chunks: int, cuda: bool) -> Overhead:
    """What `seen` says of a chunk that takes `plain` ms without the profiler."""
    plain = min(plain, seen.wall)  # the profiler makes none faster: the plain one was disturbed
    per_event = (seen.wall - plain) / max(1, seen.events)
    inside = min(plain, seen.inside - per_event * (seen.events - seen.outer))
    busy = min(plain, seen.busy)
    return Overhead(
        chunks=chunks,
        chunk_ms=round(plain, 3),
        operators=seen.outer,
        operators_ms=round(inside, 3),
        outside_percent=_rest(inside, plain),
        profiled_ms=round(seen.wall, 3),
        profiled_outside_percent=_rest(seen.inside, seen.wall),
        device_busy_ms=round(busy, 3) if cuda else None,
        device_idle_percent=_rest(busy, plain) if cuda else None,
        launch_gaps=len(seen.gaps) if cuda else None,
        longest_gap_ms=round(max(seen.gaps, default=0.0), 3) if cuda else None,
        host_waits_ms=round(seen.waits, 3) if cuda else None,
    )


def _rest(part: float, whole: float) -> float:
    return round(100 * (1 - part / whole), 2)


def _profiled(step: Callable[[], object], *, cuda: bool) -> Profiled:
    profiler = profile(use_device="cuda" if cuda else None)
    with profiler:
        start = time.perf_counter()
        step()
        wall = (time.perf_counter() - start) * 1000
    results = profiler.kineto_results
    assert results is not None, "the profiler has ended"
    return read_events(results.events(), wall)


def read_events(events: Sequence[Any], wall: float) -> Profiled:
    """The profiler's events of one chunk of `wall` ms."""
    ours = [e.device_type().name == "CPU" for e in events]
    # Operators are `namespace::name`: aten, and those of libraries.
    host = [_interval(e) for e, own in zip(events, ours, strict=True) if own and "::" in e.name()]
    device = [_interval(e) for e, own in zip(events, ours, strict=True) if not own]
    waits = [_interval(e) for e in events if _may_wait(e.name())]
    inside, outer = union(host)
    return Profiled(
        wall=wall,
        events=len(host),
        outer=outer,
        inside=inside * MS,
        busy=union(device)[0] * MS,
        gaps=tuple(gap * MS for gap in gaps(device) if gap >= GAP_NS),
        waits=union(waits)[0] * MS,
    )


def _may_wait(name: str) -> bool:
    return any(part in name for part in WAITS) and QUEUED not in name


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


def gaps(intervals: Iterable[Interval]) -> list[int]:
    """Lengths of the pauses between intervals."""
    found: list[int] = []
    reached: int | None = None
    for start, end in sorted(intervals):
        if reached is not None and start > reached:
            found.append(start - reached)
        reached = end if reached is None else max(reached, end)
    return found
