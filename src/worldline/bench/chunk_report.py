"""The figures of `bench chunk` for people: text, a table for the docs, charts. Knows no engine."""

from __future__ import annotations

from worldline.bench.chunk import STAGES, ChunkFigures
from worldline.bench.first import FirstChunk
from worldline.bench.picture import Bar, Lines, Stacked
from worldline.bench.ruler import CHUNK, PASSES, memory_lines, work_lines
from worldline.kernels.choice_file import AttentionChoice


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
        f"({figures.chunks} chunks after {figures.warmup_chunks} of warm-up); "
        f"processor time p50 {figures.chunk_cpu_ms_p50:.1f} ms",
    ]
    lines += [*work_lines(figures.work), *_remarks(figures)]
    return "\n".join(lines)


def _remarks(figures: ChunkFigures) -> list[str]:
    rates, passes, whole = figures.rates, figures.work[PASSES], figures.work[CHUNK]
    assert whole.limit_ms is not None, "a chunk always has work"
    download = rates.download_gb_per_s
    best = max(rates.shapes, key=lambda shape: shape.gflops_per_s)
    packed = ", packed" if best.packed else ""
    chosen = [f"between the matmuls: {figures.kernels}"]
    chosen += [_chosen(choice) for choice in figures.attention]
    return [
        f"this machine, {rates.dtype}: matmul {rates.matmul_gflops_per_s:.1f} GFLOP/s "
        f"({best.rows}x{best.inner}x{best.columns}{packed}), copy {rates.copy_gb_per_s:.1f} GB/s"
        + ("" if download is None else f", to the host {download:.1f} GB/s"),
        f"{PASSES} runs at {passes.matmul_percent:.1f} % of the matmul rate; the chunk takes "
        f"{whole.ms / max(whole.limit_ms, 1e-6):.2f} x the limit of {whole.limit_ms:.1f} ms",
        *_overhead_lines(figures),
        *_first_lines(figures.warm_first),
        *chosen,
        *memory_lines(figures.memory),
    ]


def _first_lines(first: FirstChunk | None) -> list[str]:
    if first is None:
        return []
    return [
        f"a new visitor now: first chunk after {first.open_ms + first.chunk_ms:.1f} ms, "
        f"{first.over_compute:.2f} x its stages ({first.compute_ms:.1f} ms); "
        f"the same start again after {first.again_ms:.1f} ms"
    ]


def _chosen(choice: AttentionChoice) -> str:
    key = choice.key
    tried = ", ".join(f"{name} {ms:.3f} ms" for name, ms in choice.ms.items())
    shape = f"{key.queries} x {key.keys} tokens, {key.heads} x {key.head_dim}"
    return f"attention of {shape}: {choice.backend}, {choice.source} ({tried})"


def _overhead_lines(figures: ChunkFigures) -> list[str]:
    loop = figures.overhead
    lines = [
        f"outside operators: {loop.outside_percent:.1f} % of a chunk of {loop.chunk_ms:.1f} ms, "
        f"{loop.operators} operators called (under the profiler "
        f"{loop.profiled_outside_percent:.1f} % of {loop.profiled_ms:.1f} ms)"
    ]
    if loop.device_idle_percent is not None:
        lines.append(
            f"the GPU waits {loop.device_idle_percent:.1f} % of a chunk, {loop.launch_gaps} times "
            f"longer than 5 us and {loop.longest_gap_ms} ms at most; the host waits for it "
            f"{loop.host_waits_ms} ms"
        )
    return lines


def as_panels(figures: ChunkFigures) -> list[Stacked | Lines]:
    """The figures as charts: stages stacked beside their limits, time against chunk index."""
    limits = {name: figures.work[name].limit_ms or 0.0 for name in STAGES}
    stages = Stacked(
        title="Time per stage of a chunk (medians), and what the machine's measured rates allow",
        unit="ms",
        bars=[Bar("measured", figures.stages), Bar("limit", limits)],
    )
    times = Lines(
        title="Time of every chunk",
        unit="ms",
        x_label="chunk",
        x=range(len(figures.chunk_times_ms)),
        curves={"whole chunk": figures.chunk_times_ms},
        shaded=figures.warmup_chunks - 0.5,
        shade_label="warm-up: the window fills",
        marks={f"p50 {figures.chunk_ms_p50:.1f} ms": figures.chunk_ms_p50},
    )
    return [stages, times]


def headline(figures: ChunkFigures) -> str:
    """What was measured where, in one line."""
    where = figures.machine.accelerator or figures.machine.processor
    return (
        f"{figures.model} {figures.width}x{figures.height}, {figures.dtype}, {figures.mode}: "
        f"{figures.fps:.2f} fps on {where}"
    )


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
    "p99",
    *STAGES,
    "passes % matmul",
    "% outside",
    "peak memory",
)


def as_markdown(figures: ChunkFigures) -> str:
    """The figures as a table for docs/benchmarks.md; times in ms."""
    where = figures.machine
    memory, loop = figures.peak_memory_mb, figures.overhead
    # What the device does not compute in: on a GPU its own pauses, else Python.
    outside = loop.outside_percent if loop.device_idle_percent is None else loop.device_idle_percent
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
        f"{figures.chunk_ms_p99:.1f}",
        *(f"{figures.stages[name]:.1f}" for name in STAGES),
        f"{figures.work[PASSES].matmul_percent:.0f}",
        f"{outside:.1f}",
        "" if memory is None else f"{memory:.0f} MB",
    )
    rule = ["---"] * len(MARKDOWN_HEAD)
    return "\n".join("| " + " | ".join(line) + " |" for line in (MARKDOWN_HEAD, rule, cells))
