"""How long a chunk takes once a session's window is full: the figures of `bench chunk`.

Runs in this process, on a loaded `World`; knows nothing about options. Times are wall times of
`session.step`, frames on the host included. What the worker does between two chunks (`prepare`) is
done here too, outside the measured time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.bench.machine import Machine, describe_machine
from worldline.core.chunk import StageTimings

if TYPE_CHECKING:
    from worldline.runtime.engine import Session, World

SETTLED_CHUNKS = 2  # measured chunks start this many after the window is full
# Walking and turning by turns: no two neighbouring chunks may share their camera tables.
WALK = (("w",), ("w", "l"), ("l",), ("w", "j"))
STAGES = tuple(
    name.removesuffix("_ms") for name in StageTimings.__struct_fields__ if name != "total_ms"
)


class ChunkRequest(NamedTuple):
    """What to measure; None leaves a number to the preset. Sizes in pixels."""

    chunks: int
    width: int | None = None
    height: int | None = None
    chunk: int | None = None
    window: int | None = None
    sink: int | None = None
    shift: float | None = None
    steps: int | None = None


class ChunkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one session. Milliseconds per chunk; `stages` are medians per stage.

    `fps` is frames over the sum of the chunks' times. `peak_memory_mb` is that of the device, or of
    the process on a CPU; None where the system does not tell.
    """

    model: str
    weights: str
    mode: str
    device: str
    dtype: str
    width: int
    height: int
    chunk: int
    window: int
    sink: int
    steps: int
    warmup_chunks: int
    chunks: int
    frames_per_chunk: int
    fps: float
    chunk_ms_p50: float
    chunk_ms_p95: float
    chunk_ms_p99: float
    chunk_ms_mean: float
    first_chunk_ms: float
    stages: dict[str, float]
    peak_memory_mb: float | None
    machine: Machine


def measure_chunks(
    world: World, request: ChunkRequest, on_chunk: Callable[[int, int], None] = lambda i, n: None
) -> ChunkFigures:
    """Warm up past the window fill, then time `request.chunks` chunks.

    `on_chunk(done, total)` is called after each. Raises: ConfigError for numbers that do not fit.
    """
    picture = _picture(world.info.width, world.info.height)
    with world.start(
        picture,
        "a place to measure",
        width=request.width,
        height=request.height,
        chunk=request.chunk,
        window=request.window,
        sink=request.sink,
        shift=request.shift,
        steps=request.steps,
    ) as session:
        warmup = warmup_chunks(session, world.components.vae.stationary_latent)
        total = warmup + request.chunks
        spent: list[float] = []
        timings: list[StageTimings] = []
        for i in range(total):
            start = time.perf_counter()
            chunk = session.step([WALK[i % len(WALK)]] * session.chunk)
            spent.append((time.perf_counter() - start) * 1000)
            timings.append(chunk.timings)
            session.prepare()
            on_chunk(i + 1, total)
        return _figures(world, session, warmup=warmup, spent=spent, timings=timings)


def warmup_chunks(session: Session, stationary_latent: int) -> int:
    """Chunks until the window is full and the picture's encode has reached its fixed point."""
    latents = max(session.window, stationary_latent + 1)
    return -(-latents // session.chunk) + SETTLED_CHUNKS


def _figures(
    world: World,
    session: Session,
    *,
    warmup: int,
    spent: list[float],
    timings: list[StageTimings],
) -> ChunkFigures:
    info, frames = world.info, 4 * session.chunk
    measured = np.array(spent[warmup:])
    p50, p95, p99 = np.percentile(measured, [50, 95, 99])
    stages = {
        name: round(float(np.median([getattr(t, f"{name}_ms") for t in timings[warmup:]])), 3)
        for name in STAGES
    }
    return ChunkFigures(
        model=info.model,
        weights=info.weights,
        mode=info.mode,
        device=info.device,
        dtype=info.dtype,
        width=session.width,
        height=session.height,
        chunk=session.chunk,
        window=session.window,
        sink=session.sink,
        steps=session.steps,
        warmup_chunks=warmup,
        chunks=len(measured),
        frames_per_chunk=frames,
        fps=round(frames * len(measured) * 1000 / float(measured.sum()), 2),
        chunk_ms_p50=round(float(p50), 2),
        chunk_ms_p95=round(float(p95), 2),
        chunk_ms_p99=round(float(p99), 2),
        chunk_ms_mean=round(float(measured.mean()), 2),
        first_chunk_ms=round(spent[0], 2),
        stages=stages,
        peak_memory_mb=_peak_memory_mb(info.device),
        machine=describe_machine(),
    )


def _picture(width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture, uint8 `H W 3`: what it shows does not change the time."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return np.stack(channels, axis=-1).astype(np.uint8)  # H W 3


def _peak_memory_mb(device: str) -> float | None:
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def as_table(figures: ChunkFigures) -> str:
    """The figures as lines of text."""
    where = figures.machine
    lines = [
        f"{figures.model} {figures.width}x{figures.height}, chunk {figures.chunk}, window "
        f"{figures.window}, sink {figures.sink}, {figures.steps} steps, {figures.dtype}, "
        f"{figures.mode} mode, weights {figures.weights or 'unnamed'}",
        f"on {where.accelerator or where.processor}, {where.cores} cores, {where.threads} threads, "
        f"torch {where.torch}, commit {where.commit}",
        f"{figures.fps:.2f} fps; chunk of {figures.frames_per_chunk} frames: "
        f"p50 {figures.chunk_ms_p50:.1f} ms, p95 {figures.chunk_ms_p95:.1f} ms, "
        f"p99 {figures.chunk_ms_p99:.1f} ms, first {figures.first_chunk_ms:.1f} ms "
        f"({figures.chunks} chunks after {figures.warmup_chunks} of warm-up)",
    ]
    lines += [f"  {name:<12}{ms:>10.2f} ms" for name, ms in figures.stages.items()]
    if figures.peak_memory_mb is not None:
        lines.append(f"peak memory {figures.peak_memory_mb:.0f} MB")
    return "\n".join(lines)


MARKDOWN_HEAD = (
    "model",
    "size",
    "chunk/window/sink/steps",
    "dtype, mode, threads",
    "hardware",
    "torch",
    "commit",
    "fps",
    "chunk p50",
    "p95",
    *STAGES,
    "peak memory",
)


def as_markdown(figures: ChunkFigures) -> str:
    """The figures as a table for docs/benchmarks.md; times in ms."""
    where = figures.machine
    memory = figures.peak_memory_mb
    cells = (
        figures.model,
        f"{figures.width}x{figures.height}",
        f"{figures.chunk}/{figures.window}/{figures.sink}/{figures.steps}",
        f"{figures.dtype}, {figures.mode}, {where.threads}",
        where.accelerator or f"{where.processor}, {where.cores} cores",
        where.torch,
        where.commit,
        f"{figures.fps:.1f}",
        f"{figures.chunk_ms_p50:.1f}",
        f"{figures.chunk_ms_p95:.1f}",
        *(f"{figures.stages[name]:.1f}" for name in STAGES),
        "" if memory is None else f"{memory:.0f} MB",
    )
    rule = ["---"] * len(MARKDOWN_HEAD)
    return "\n".join("| " + " | ".join(line) + " |" for line in (MARKDOWN_HEAD, rule, cells))
