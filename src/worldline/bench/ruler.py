"""Measured stage times beside what the arithmetic and the machine's rates allow.

The limit of a stage is the longer of its matrix products at the measured matmul rate and its
unavoidable traffic at the measured copy rate. Both are computed; only times and rates are measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from worldline.bench.arithmetic import (
    ChunkFlops,
    ChunkSize,
    camera_traffic,
    chunk_flops,
    pass_traffic,
)
from worldline.bench.census import MB, device_mb, mb_of, peak_memory_mb
from worldline.bench.decode_work import decode_flops
from worldline.bench.plan import Wanted, plan_memory
from worldline.bench.rates import Rates
from worldline.bench.workspace import workspace_bytes
from worldline.runtime.memory import camera_modulation_bytes
from worldline.runtime.stand_in import RandomText

if TYPE_CHECKING:
    from worldline.runtime.engine import Session, World

GIGA = 1e9
FRAME_CHANNELS = 3
PASSES, CHUNK = "denoise+context", "chunk"


class StageWork(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: `ms` measured, `gflop` and `moved_mb` computed, the rest follows from the rates.

    `parts` are the GFLOP of each part. `limit_ms` is what the machine's measured rates allow; None
    where nothing is counted.
    """

    ms: float
    gflop: float
    parts: dict[str, float]
    moved_mb: float
    gflops_per_s: float
    matmul_percent: float
    copy_percent: float
    limit_ms: float | None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes (2^20), measured in this process but for what is planned and camera's tables.

    `caches` are a session's named caches, `decoder` its history of features, `session` all of it,
    the ring's keys and values (`kv`) included. `camera_modulation` lives only inside a chunk and is
    part of `workspace`: what one chunk takes beyond what is `held` between two. `planned` is the
    same before anything was loaded (see `plan`), by part; `planned_peak` its sum. `peak` is the
    most the GPU's allocator, or this whole process, has held so far; `off_percent` compares the
    plan with held and workspace together.
    """

    weights: dict[str, float]
    kv: float
    caches: float
    decoder: float
    session: float
    camera_modulation: float
    held: float
    workspace: float
    planned: dict[str, float]
    planned_peak: float
    off_percent: float
    peak: float | None


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Computed work of one chunk: FLOPs per stage and part, bytes moved at least per stage."""

    flops: dict[str, dict[str, int]]
    moved: dict[str, int]


def chunk_work(world: World, session: Session, keys: float) -> Work:
    """What one chunk of `session` takes while it attends `keys` tokens."""
    state, dit = session.state, world.components.dit
    size = chunk_size(session, keys)
    flops: ChunkFlops = chunk_flops(
        dit.params,
        size,
        without=session.engine.without,
        camera_cache=session.engine.camera_cache,
    )
    tiny = world.components.preview is not None
    decoder = decode_flops(world.preset, session.chunk, state.geometry.latent, tiny=tiny)
    kept = camera_kept(session)
    width = dit.dtype.itemsize
    traffic = pass_traffic(dit.params, size, width=width, camera_cache=kept)
    frames = 4 * session.chunk
    return Work(
        flops={**flops._asdict(), "decode": {"decoder": decoder}},
        moved={
            "conditions": camera_traffic(dit.params, size, width=width) if kept else 0,
            "denoise": size.steps * traffic,
            "context": traffic,
            "transfer": frames * session.width * session.height * FRAME_CHANNELS,
        },
    )


def camera_kept(session: Session) -> bool:
    """Whether scale and shift of all blocks are made once per chunk and kept for its passes."""
    return session.engine.camera_cache and "camera" not in session.engine.without


def chunk_size(session: Session, keys: float) -> ChunkSize:
    """The numbers that the work of a session's chunk depends on."""
    tokens = session.chunk * session.state.geometry.tokens_per_frame
    pixels = session.chunk * session.width * session.height
    return ChunkSize(tokens, keys, session.steps, pixels)


def lay_beside(
    stages: dict[str, float], work: Work, rates: Rates, *, chunk_ms: float
) -> dict[str, StageWork]:
    """Every stage's work beside its time; then both kinds of pass together, then the chunk."""
    rows = {
        name: _stage(
            ms,
            flops=work.flops.get(name, {}),
            moved=work.moved.get(name, 0),
            rates=rates,
            copy_rate=(rates.download_gb_per_s if name == "transfer" else None),
        )
        for name, ms in stages.items()
    }
    passes = [rows["denoise"], rows["context"]]
    rows[PASSES] = _sum(passes, ms=sum(row.ms for row in passes), rates=rates)
    rows[CHUNK] = _sum([rows[name] for name in stages], ms=chunk_ms, rates=rates)
    return rows


def _stage(
    ms: float, *, flops: dict[str, int], moved: int, rates: Rates, copy_rate: float | None
) -> StageWork:
    copy = copy_rate or rates.copy_gb_per_s
    total = sum(flops.values())
    counted = total > 0 or moved > 0
    limit = max(total / GIGA / rates.matmul_gflops_per_s, moved / GIGA / copy) * 1000
    return _row(
        ms,
        gflop=total / GIGA,
        parts={name: _digits(n / GIGA) for name, n in flops.items()},
        moved_mb=moved / MB,
        limit_ms=limit if counted else None,
        rates=(rates.matmul_gflops_per_s, copy),
    )


def _sum(rows: list[StageWork], *, ms: float, rates: Rates) -> StageWork:
    parts: dict[str, float] = {}
    for row in rows:
        for name, gflop in row.parts.items():
            parts[name] = _digits(parts.get(name, 0.0) + gflop)
    return _row(
        ms,
        gflop=sum(row.gflop for row in rows),
        parts=parts,
        moved_mb=sum(row.moved_mb for row in rows),
        limit_ms=sum(row.limit_ms or 0.0 for row in rows),
        rates=(rates.matmul_gflops_per_s, rates.copy_gb_per_s),
    )


def _row(
    ms: float,
    *,
    gflop: float,
    parts: dict[str, float],
    moved_mb: float,
    limit_ms: float | None,
    rates: tuple[float, float],
) -> StageWork:
    seconds = max(ms, 1e-6) / 1000
    matmul, copy = rates
    return StageWork(
        ms=round(ms, 3),
        gflop=_digits(gflop),
        parts=parts,
        moved_mb=round(moved_mb, 3),
        gflops_per_s=round(gflop / seconds, 2),
        matmul_percent=round(100 * gflop / seconds / matmul, 2),
        copy_percent=round(100 * moved_mb * MB / GIGA / seconds / copy, 2),
        limit_ms=None if limit_ms is None else round(limit_ms, 3),
    )


def _digits(value: float) -> float:
    """Nine significant digits: sums of parts still agree, and JSON stays readable."""
    return float(f"{value:.9g}")


def memory_of(world: World, session: Session, step: Callable[[], object]) -> Memory:
    """What a loaded model and one of its sessions hold, and what `step`, one chunk, takes."""
    parts, device = world.components, world.components.dit.device
    # What it may go back to lies on the host and is planned by a room of its own.
    state = dataclasses.replace(session.state, timeline=None)
    networks = {
        "transformer": parts.dit,
        "autoencoder": parts.vae,
        "text encoder": parts.text,
        "tiny decoder": parts.preview,
    }
    weights = {name: mb for name, part in networks.items() if (mb := mb_of(part))}
    peak = peak_memory_mb(device)
    held = device_mb(device)
    held = mb_of([*networks.values(), state]) if held is None else held
    inside = workspace_bytes(step, device) / MB
    plan = plan_memory(_wanted(world, session))
    planned = plan.peak() / MB
    by_part = {**plan.weights, **plan.session, "workspace": plan.workspace()}
    return Memory(
        weights=weights,
        kv=round(state.kv.nbytes / MB, 3),
        caches=mb_of(state.caches),
        decoder=mb_of(state.decoder),
        session=mb_of(state),
        camera_modulation=round(camera_bytes(session) / MB, 3),
        held=round(held, 3),
        workspace=round(inside, 3),
        planned={name: round(nbytes / MB, 3) for name, nbytes in by_part.items()},
        planned_peak=round(planned, 3),
        off_percent=round(100 * (planned / (held + inside) - 1), 2),
        peak=peak,
    )


def camera_bytes(session: Session) -> int:
    """Scale and shift of all blocks for one chunk, where they are kept for its passes."""
    dit, tokens = session.engine.dit, session.chunk * session.state.geometry.tokens_per_frame
    taken = camera_modulation_bytes(dit.params, tokens, dtype=dit.dtype)
    return taken if camera_kept(session) else 0


def _wanted(world: World, session: Session) -> Wanted:
    options = world.options
    if not camera_kept(session):
        options = msgspec.structs.replace(options, camera_cache="off")
    if isinstance(world.components.text, RandomText):  # has no encoder's weights
        options = msgspec.structs.replace(options, text_encoder="cpu")
    dit = world.components.dit
    return Wanted(
        world.preset,
        session.width,
        session.height,
        session.state.settings,
        mode=world.mode,
        cuda=dit.device.type == "cuda",
        dtype=dit.dtype,
        options=options,
    )


def work_lines(rows: dict[str, StageWork]) -> list[str]:
    """The stages as lines of text; TFLOP and GB where the numbers are large."""
    large = rows[CHUNK].gflop >= 1000
    unit, scale = ("TFLOP", 1000) if large else ("GFLOP", 1)
    head = f"  {'stage':<16}{'ms':>10}{unit:>10}{unit + '/s':>10}{'% matmul':>10}"
    lines = [f"{head}{'MB moved':>10}{'% copy':>8}{'limit ms':>10}"]
    for name, row in rows.items():
        limit = "" if row.limit_ms is None else f"{row.limit_ms:.2f}"
        cells = f"{row.ms:>10.2f}{row.gflop / scale:>10.3f}{row.gflops_per_s / scale:>10.2f}"
        cells += f"{row.matmul_percent:>10.1f}{row.moved_mb:>10.1f}{row.copy_percent:>8.1f}"
        lines.append(f"  {name:<16}{cells}{limit:>10}")
    return lines


def memory_lines(memory: Memory) -> list[str]:
    """The memory as lines of text."""
    weights = ", ".join(f"{name} {mb:.1f}" for name, mb in memory.weights.items())
    planned = ", ".join(f"{name} {mb:.1f}" for name, mb in memory.planned.items() if mb)
    peak = "" if memory.peak is None else f"; peak so far {memory.peak:.0f}"
    return [
        f"memory in MB: weights {weights}; session {memory.session:.1f} (KV {memory.kv:.1f}, "
        f"caches {memory.caches:.1f}, decoder {memory.decoder:.1f}); held between chunks "
        f"{memory.held:.1f}, inside one {memory.workspace:.1f} more, of which camera modulation "
        f"{memory.camera_modulation:.1f}{peak}",
        f"planned: {memory.planned_peak:.1f} ({memory.off_percent:+.1f} % of what was measured): "
        f"{planned}",
    ]
