"""One session for very many chunks: do times, memory and counts stay where they were?

Runs in this process on a loaded `World`. Times are wall times of `session.step`; what is counted is
counted between chunks, outside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.bench.census import resident_mb, take_census
from worldline.bench.chunk import (
    ChunkRequest,
    Subject,
    controls,
    describe,
    open_session,
    warmup_chunks,
)
from worldline.bench.picture import Lines

if TYPE_CHECKING:
    from worldline.runtime.engine import Session, World

LONG_RUN = 2000  # chunks from which on a part has a thousand, below it is a tenth of the run
THOUSAND = 1000
SETTLING_SHARE = 0.1  # of the run: memory that allocators take in its first part is no slope


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks `first` to `last`: their times, and what the process held after the last of them.

    `shared` are mapped pieces of shared memory, `tensor_mb` the memory under all live tensors.
    """

    first: int
    last: int
    chunk_ms_p50: float
    chunk_ms_p99: float
    resident_mb: float | None
    device_mb: float | None
    tensors: int
    tensor_mb: float
    descriptors: int | None
    shared: int | None


class SoakFigures(Subject, frozen=True, kw_only=True):
    """The run as a whole, and part by part.

    Times leave out the chunks of the warm-up; `chunk_cpu_ms` are processor time of all threads,
    which other processes on the machine lengthen little. Slopes are least squares over the time
    after `settling_chunks`, over every chunk for resident memory and over the parts for the
    device's; None where nothing tells or the run was too short. `counts_held` says that live
    tensors, their bytes, descriptors and shared memory were the same after every part of which the
    window was full and the picture encoded.
    """

    chunks: int
    warmup_chunks: int
    settling_chunks: int
    hours: float
    reanchored: int
    fps: float
    chunk_ms_p50: float
    chunk_ms_p99: float
    p99_over_p50: float
    chunk_cpu_ms_p50: float
    chunk_cpu_ms_p99: float
    resident_slope_mb_per_hour: float | None
    device_slope_mb_per_hour: float | None
    counts_held: bool
    parts: tuple[Part, ...]


class _Samples(NamedTuple):
    """Per chunk: seconds since the start, its time and processor time in ms, resident MB (or NaN).

    All of it exists before the first chunk: lists would grow by 128 bytes a chunk, which at 15
    chunks a second is the 7 MB per hour that this run is to rule out.
    """

    at: NDArray[np.float64]
    spent: NDArray[np.float64]
    busy: NDArray[np.float64]
    resident: NDArray[np.float64]


def measure_soak(
    world: World, request: ChunkRequest, on_chunk: Callable[[int, int], None] = lambda i, n: None
) -> SoakFigures:
    """Generate `request.chunks` chunks in one session, warm-up included.

    `on_chunk(done, total)` is called after each. Raises: ConfigError for numbers that do not fit.
    """
    samples, parts, moved = _Samples(*np.full((4, request.chunks), np.nan)), list[Part](), 0
    ends = part_ends(request.chunks)
    with open_session(world, request) as session:
        start = time.perf_counter()
        for i in range(request.chunks):
            anchor = session.state.anchor
            before, busy = time.perf_counter(), time.process_time()
            session.step(controls(session, i))
            samples.spent[i] = (time.perf_counter() - before) * 1000
            samples.busy[i] = (time.process_time() - busy) * 1000
            session.prepare()
            samples.at[i] = time.perf_counter() - start
            samples.resident[i] = resident_mb() or np.nan
            moved += session.state.anchor != anchor
            if i + 1 in ends:
                first = parts[-1].last + 1 if parts else 0
                parts.append(_part(world, samples.spent[first : i + 1], first))
            on_chunk(i + 1, request.chunks)
        return _figures(world, session, samples, tuple(parts), reanchored=moved)


def part_ends(chunks: int) -> list[int]:
    """After how many chunks a part ends: every thousand, or every tenth of a short run."""
    size = THOUSAND if chunks >= LONG_RUN else max(1, -(-chunks // 10))
    return [*range(size, chunks, size), chunks]


def _part(world: World, spent: NDArray[np.float64], first: int) -> Part:
    census = take_census(world.components.dit.device)
    p50, p99 = np.percentile(spent, [50, 99])
    return Part(
        first=first,
        last=first + len(spent) - 1,
        chunk_ms_p50=round(float(p50), 2),
        chunk_ms_p99=round(float(p99), 2),
        resident_mb=_rounded(census.resident_mb),
        device_mb=_rounded(census.device_mb),
        tensors=census.tensors.number,
        tensor_mb=round(census.tensors.nbytes / 2**20, 6),
        descriptors=census.descriptors,
        shared=census.shared,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _figures(
    world: World,
    session: Session,
    samples: _Samples,
    parts: tuple[Part, ...],
    *,
    reanchored: int,
) -> SoakFigures:
    chunks = len(samples.spent)
    warmup = min(warmup_chunks(session, world.components.vae.stationary_latent), chunks // 2)
    settling = max(warmup, round(SETTLING_SHARE * chunks))
    filled = max(warmup, min(reached_chunks(session), chunks // 2))
    settled = samples.spent[warmup:]
    p50, p99 = np.percentile(settled, [50, 99])
    busy50, busy99 = np.percentile(samples.busy[warmup:], [50, 99])
    ends = [float(samples.at[part.last]) for part in parts]
    device = [(at, p.device_mb) for at, p in zip(ends, parts, strict=True) if p.last >= settling]
    resident = [
        (at, None if np.isnan(mb) else mb)
        for at, mb in zip(samples.at.tolist(), samples.resident.tolist(), strict=True)
    ][settling:]
    return SoakFigures(
        **msgspec.structs.asdict(describe(world, session)),
        chunks=chunks,
        warmup_chunks=warmup,
        settling_chunks=settling,
        hours=round(float(samples.at[-1]) / 3600, 4),
        reanchored=reanchored,
        fps=round(4 * session.chunk * 1000 / float(settled.mean()), 2),
        chunk_ms_p50=round(float(p50), 2),
        chunk_ms_p99=round(float(p99), 2),
        p99_over_p50=round(float(p99 / p50), 3),
        chunk_cpu_ms_p50=round(float(busy50), 2),
        chunk_cpu_ms_p99=round(float(busy99), 2),
        resident_slope_mb_per_hour=slope_per_hour(resident),
        device_slope_mb_per_hour=slope_per_hour(device),
        counts_held=counts_held([part for part in parts if part.last >= filled]),
        parts=parts,
    )


def reached_chunks(session: Session) -> int:
    """Chunks until as much is kept as the next one reaches back to, whatever comes."""
    timeline = session.state.timeline
    if timeline is None:
        return 0
    reach = timeline.reach
    return -(-max(reach.window - reach.sink, reach.history) // reach.chunk) + 1


def slope_per_hour(points: list[tuple[float, float | None]]) -> float | None:
    """Least-squares slope of (seconds, value), per hour; None for fewer than three known values."""
    known = [(at, value) for at, value in points if value is not None]
    if len(known) < 3:
        return None
    at, value = np.array(known).T
    at = at - at.mean()
    return round(float(at @ (value - value.mean()) / (at @ at)) * 3600, 3)


def counts_held(parts: Sequence[Part]) -> bool:
    """Whether all `parts` ended with the same tensors, bytes, descriptors and shared memory."""
    return len({(p.tensors, p.tensor_mb, p.descriptors, p.shared) for p in parts}) <= 1


def as_table(figures: SoakFigures) -> str:
    """The figures as lines of text."""
    where = figures.machine
    lines = [
        f"{figures.model} {figures.width}x{figures.height}, {figures.dtype}, {figures.mode} mode: "
        f"{figures.chunks} chunks in {figures.hours:.2f} h, positions moved {figures.reanchored} x",
        f"on {where.accelerator or where.processor}, {where.cores} cores, {where.threads} threads, "
        f"torch {where.torch}, commit {where.commit}",
        f"p50 {figures.chunk_ms_p50:.1f} ms, p99 {figures.chunk_ms_p99:.1f} ms "
        f"({figures.p99_over_p50:.3f} x p50), {figures.fps:.2f} fps; processor time "
        f"p50 {figures.chunk_cpu_ms_p50:.1f} ms, p99 {figures.chunk_cpu_ms_p99:.1f} ms",
        f"after {figures.settling_chunks} chunks: resident memory "
        f"{_slope(figures.resident_slope_mb_per_hour)}, "
        f"device memory {_slope(figures.device_slope_mb_per_hour)}",
        "tensors, descriptors and shared memory "
        + ("stayed the same" if figures.counts_held else "CHANGED"),
        f"  {'chunks':<16}{'p50 ms':>9}{'p99 ms':>9}{'RSS MB':>10}{'device MB':>11}{'tensors':>9}"
        f"{'tensor MB':>11}{'files':>7}{'shared':>8}",
    ]
    for p in figures.parts:
        lines.append(
            f"  {f'{p.first} to {p.last}':<16}{p.chunk_ms_p50:>9.1f}{p.chunk_ms_p99:>9.1f}"
            f"{_cell(p.resident_mb):>10}{_cell(p.device_mb):>11}{p.tensors:>9}{p.tensor_mb:>11.3f}"
            f"{_cell(p.descriptors):>7}{_cell(p.shared):>8}"
        )
    return "\n".join(lines)


def _slope(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.2f} MB/h"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def as_panels(figures: SoakFigures) -> list[Lines]:
    """The figures as charts: times and memory, part by part."""
    x = [part.last + 1 for part in figures.parts]
    times = Lines(
        title="Time of a chunk, per part of the run",
        unit="ms",
        x_label="chunks generated",
        x=x,
        curves={
            "p50": [p.chunk_ms_p50 for p in figures.parts],
            "p99": [p.chunk_ms_p99 for p in figures.parts],
        },
    )
    held: dict[str, list[float | None]] = {
        "resident": [p.resident_mb for p in figures.parts],
        "live tensors": [p.tensor_mb for p in figures.parts],
    }
    if figures.device_slope_mb_per_hour is not None:
        held["device"] = [p.device_mb for p in figures.parts]
    slope = _slope(figures.resident_slope_mb_per_hour)
    title = f"Memory (resident memory after the first {figures.settling_chunks} chunks: {slope})"
    return [times, Lines(title=title, unit="MB", x_label="chunks generated", x=x, curves=held)]


def headline(figures: SoakFigures) -> str:
    """What was measured where, in one line."""
    where = figures.machine.accelerator or figures.machine.processor
    return f"{figures.model} {figures.width}x{figures.height}: {figures.chunks} chunks on {where}"
