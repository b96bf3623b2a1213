"""How long a chunk takes once a session's window is full: the figures of `bench chunk`.

Runs in this process, on a loaded `World`; knows nothing about options. Times are wall times of
`session.step`, frames on the host included. What the worker does between two chunks (`prepare`) is
done here too, outside the measured time. Beside the times stand the work they were spent on and
what the machine's own rates allow (see `ruler`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.bench.first import FirstChunk, measure_first
from worldline.bench.machine import Machine, describe_machine
from worldline.bench.overhead import Overhead, measure_overhead
from worldline.bench.rates import Rates, measure_rates
from worldline.bench.ruler import Memory, StageWork, chunk_work, lay_beside, memory_of
from worldline.core.chunk import StageTimings
from worldline.core.config import EngineOptions
from worldline.kernels.choice_file import AttentionChoice

if TYPE_CHECKING:
    from worldline.runtime.engine import Session, World

SEED, OTHER_SEED = 42, 43  # the second one's first chunk has not been made before
PROFILED_CHUNKS = 6  # after the measured ones and as often without, for the loop's own cost
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


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Which model was measured, and at which numbers.

    `kernels` compute between the matmuls; `attention` is what was chosen by measurement, per shape.
    """

    model: str
    weights: str
    mode: str
    kernels: str
    attention: tuple[AttentionChoice, ...]
    options: EngineOptions
    device: str
    dtype: str
    width: int
    height: int
    chunk: int
    window: int
    sink: int
    steps: int
    machine: Machine


class ChunkFigures(Subject, frozen=True, kw_only=True):
    """Figures of one session. Milliseconds per chunk; `stages` are medians per stage.

    `fps` is frames over the sum of the chunks' times. `chunk_cpu_ms_p50` is processor time of all
    threads, which other processes on the machine lengthen little. `peak_memory_mb` is that of the
    device, or of the process on a CPU; None where the system does not tell. `work` has a row for
    every stage, for both kinds of pass together and for the chunk; `chunk_times_ms` all chunks,
    warm-up included; `warm_first` is a visitor's first chunk after all of this.
    """

    warmup_chunks: int
    chunks: int
    frames_per_chunk: int
    fps: float
    chunk_ms_p50: float
    chunk_ms_p95: float
    chunk_ms_p99: float
    chunk_ms_mean: float
    chunk_cpu_ms_p50: float
    first_chunk_ms: float
    stages: dict[str, float]
    peak_memory_mb: float | None
    work: dict[str, StageWork]
    rates: Rates
    memory: Memory
    overhead: Overhead
    chunk_times_ms: tuple[float, ...]
    warm_first: FirstChunk | None = None


class Watched(NamedTuple):
    """What was seen of a session: one entry per chunk, warm-up included."""

    warmup: int
    spent: list[float]  # ms
    busy: list[float]  # ms of processor time
    timings: list[StageTimings]
    visible: list[int]  # tokens attended

    def stage_medians(self) -> dict[str, float]:
        """Median milliseconds of each stage, over the measured chunks."""
        measured = self.timings[self.warmup :]
        return {
            name: round(float(np.median([getattr(t, f"{name}_ms") for t in measured])), 3)
            for name in STAGES
        }


def measure_chunks(
    world: World, request: ChunkRequest, on_chunk: Callable[[int, int], None] = lambda i, n: None
) -> ChunkFigures:
    """Warm up past the window fill, then time `request.chunks` chunks.

    `on_chunk(done, total)` is called after each. Raises: ConfigError for numbers that do not fit.
    """
    with open_session(world, request) as session:
        warmup = warmup_chunks(session, world.components.vae.stationary_latent)
        watched = Watched(warmup, [], [], [], [])
        total = warmup + request.chunks
        for i in range(total):
            start, busy = time.perf_counter(), time.process_time()
            chunk = session.step(controls(session, i))
            watched.spent.append((time.perf_counter() - start) * 1000)
            watched.busy.append((time.process_time() - busy) * 1000)
            watched.timings.append(chunk.timings)
            watched.visible.append(session.state.kv.visible_tokens)
            session.prepare()
            on_chunk(i + 1, total)
        figures = _figures(world, session, watched)
    visitor = partial(open_session, world, request, seed=OTHER_SEED)
    return msgspec.structs.replace(figures, warm_first=measure_first(visitor))


def open_session(world: World, request: ChunkRequest, *, seed: int = SEED) -> Session:
    """A session of the size asked for. Raises: ConfigError."""
    return world.start(
        _picture(world.info.width, world.info.height),
        "a place to measure",
        seed,
        width=request.width,
        height=request.height,
        chunk=request.chunk,
        window=request.window,
        sink=request.sink,
        shift=request.shift,
        steps=request.steps,
    )


def describe(world: World, session: Session) -> Subject:
    """What a measurement of `session` is a measurement of."""
    info = world.info
    return Subject(
        model=info.model,
        weights=info.weights,
        mode=info.mode,
        kernels=world.kernels,
        attention=tuple(world.attention),
        options=world.options,
        device=info.device,
        dtype=info.dtype,
        width=session.width,
        height=session.height,
        chunk=session.chunk,
        window=session.window,
        sink=session.sink,
        steps=session.steps,
        machine=describe_machine(),
    )


def controls(session: Session, index: int) -> list[tuple[str, ...]]:
    """The keys held during chunk `index` of a measurement."""
    return [WALK[index % len(WALK)]] * session.chunk


def warmup_chunks(session: Session, stationary_latent: int) -> int:
    """Chunks until the window is full and the picture's encode has reached its fixed point."""
    latents = max(session.window, stationary_latent + 1)
    return -(-latents // session.chunk) + SETTLED_CHUNKS


def _figures(world: World, session: Session, watched: Watched) -> ChunkFigures:
    frames, warmup, subject = 4 * session.chunk, watched.warmup, describe(world, session)
    measured = np.array(watched.spent[warmup:])
    p50, p95, p99 = np.percentile(measured, [50, 95, 99])
    stages = watched.stage_medians()
    dit = world.components.dit

    def step() -> None:
        session.step(controls(session, session.next_chunk))

    memory = memory_of(world, session, step)  # before the profiler, which needs some of its own
    work = chunk_work(world, session, float(np.mean(watched.visible[warmup:])))
    rates = measure_rates(dit, session.chunk * session.state.geometry.tokens_per_frame)
    return ChunkFigures(
        **msgspec.structs.asdict(subject),
        warmup_chunks=warmup,
        chunks=len(measured),
        frames_per_chunk=frames,
        fps=round(frames * len(measured) * 1000 / float(measured.sum()), 2),
        chunk_ms_p50=round(float(p50), 2),
        chunk_ms_p95=round(float(p95), 2),
        chunk_ms_p99=round(float(p99), 2),
        chunk_ms_mean=round(float(measured.mean()), 2),
        chunk_cpu_ms_p50=round(float(np.median(watched.busy[warmup:])), 2),
        first_chunk_ms=round(watched.spent[0], 2),
        stages=stages,
        peak_memory_mb=memory.peak,
        work=lay_beside(stages, work, rates, chunk_ms=float(p50)),
        rates=rates,
        memory=memory,
        overhead=measure_overhead(step, chunks=PROFILED_CHUNKS, cuda=dit.device.type == "cuda"),
        chunk_times_ms=tuple(round(ms, 3) for ms in watched.spent),
    )


def _picture(width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture, uint8 `H W 3`: what it shows does not change the time."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return np.stack(channels, axis=-1).astype(np.uint8)  # H W 3
