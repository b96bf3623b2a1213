"""How long a chunk takes on 1 to 8 devices: a model, not a measurement. Pure arithmetic.

A chunk is its passes, cut by tokens; their all-to-alls; its decoding, cut by columns; what
neighbours lend each other for that; and what is not cut. Stage times of one device are measured
(`bench chunk --json` on it) or computed from what it sustains. All else is in `Assumptions`, which
are printed with every result. Nothing overlaps in it: on one device decoder and passes compete for
the same multiprocessors, and what waits for a collective waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from worldline.bench.arithmetic import ChunkFlops
from worldline.bench.column_work import Exchanged
from worldline.runtime.parallel.expected import Sharing, formula

TERA, GIGA = 1e12, 1e9
CASES = (1, 2, 4, 8)
GOAL_FPS, MOONSHOT_FPS = 24.0, 27.0


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """What one device keeps up, in TFLOP/s, by kind of work; `source` says who says so."""

    matmul: float
    attention: float
    decoder: float
    source: str


class Stages(msgspec.Struct, frozen=True, kw_only=True):
    """One device's milliseconds for a chunk at the full window.

    `fixed` is what every rank does whole: poses, tables, bytes to the host.
    """

    passes: float
    decode: float
    fixed: float
    source: str


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is not known of several devices.

    `link_gb_per_s` leave a device at once, `call_us` is a collective of no bytes: launch, handshake
    and waiting for the slowest. With every halving of its share a device loses the fraction `lost`
    of its rate: products of fewer rows fill it less well.
    """

    link_gb_per_s: float
    call_us: float
    lost: float
    source: str

    def kept(self, ranks: int) -> float:
        """The fraction of its rate that a device keeps when it has one of so many shares."""
        return 1 - self.lost * math.log2(ranks)


class Shape(NamedTuple):
    """What is cut: the chunk as one rank has it, and the `columns` of its latents.

    Without columns every rank decodes all of it. `decoding` are a rank's exchanges for that, by the
    number of ranks; `frames` are those of a chunk.
    """

    sharing: Sharing
    frames: int
    columns: int | None
    decoding: dict[int, Exchanged]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk on `ranks` devices, in ms by what it is spent on."""

    ranks: int
    parts: dict[str, float]
    chunk_ms: float
    fps: float


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """Estimates of one way to run, with all they rest on; `judged` by what is wanted of the 14B."""

    title: str
    stages: Stages
    assumptions: Assumptions
    estimates: tuple[Estimate, ...]
    judged: bool = True

    def fps(self, ranks: int) -> float:
        """Frames per second on so many devices."""
        return next(e.fps for e in self.estimates if e.ranks == ranks)


def computed_stages(
    flops: ChunkFlops, decoder: int, rate: Sustained, *, context: bool = True, fixed_ms: float = 1.0
) -> Stages:
    """Stages of one device from the work of a chunk and of its decoder, both in FLOPs.

    Without `context` there is no context pass (`--lossy last_step_kv`).
    """
    parts = [flops.conditions, flops.denoise, *([flops.context] if context else [])]
    attention = sum(part.get("self_attention", 0) for part in parts)
    rest = sum(sum(part.values()) for part in parts) - attention
    passes = rest / TERA / rate.matmul + attention / TERA / rate.attention
    return Stages(
        passes=1000 * passes,
        decode=1000 * decoder / TERA / rate.decoder,
        fixed=fixed_ms,
        source=f"computed: {rest / TERA:.0f} TFLOP at {rate.matmul:g}, attention "
        f"{attention / TERA:.0f} at {rate.attention:g}, decoder {decoder / TERA:.1f} at "
        f"{rate.decoder:g} TFLOP/s ({rate.source})",
    )


def measured_stages(stages: dict[str, float], where: str) -> Stages:
    """Stages as `bench chunk --json` has printed them on one device."""
    passes = sum(stages.get(name, 0.0) for name in ("conditions", "denoise", "context"))
    return Stages(
        passes=passes,
        decode=stages.get("decode", 0.0),
        fixed=stages.get("transfer", 0.0),
        source=f"measured on {where}",
    )


def estimate(stages: Stages, shape: Shape, assumed: Assumptions, *, ranks: int) -> Estimate:
    """A chunk on so many devices."""
    share = assumed.kept(ranks) * ranks
    sent = formula(shape.sharing._replace(ranks=ranks)) if ranks > 1 else None
    halo = shape.decoding[ranks] if shape.columns and ranks > 1 else Exchanged(0, 0)
    parts = {
        "passes": stages.passes * _slowest(shape.sharing.tokens, ranks) / share,
        "all-to-all": 0.0 if sent is None else _exchange(sent.calls, sent.nbytes / ranks, assumed),
        "decode": stages.decode
        if shape.columns is None
        else stages.decode * _slowest(shape.columns, ranks) / share,
        "halo": _exchange(halo.calls, halo.nbytes, assumed),
        "fixed": stages.fixed,
    }
    total = sum(parts.values())
    return Estimate(
        ranks=ranks,
        parts={name: round(ms, 3) for name, ms in parts.items()},
        chunk_ms=round(total, 3),
        fps=round(1000 * shape.frames / total, 2),
    )


def scale(
    title: str,
    stages: Stages,
    shape: Shape,
    assumed: Assumptions,
    *,
    cases: Sequence[int] = CASES,
    judged: bool = True,
) -> Scaling:
    """Estimates on every number of devices in `cases`."""
    found = tuple(estimate(stages, shape, assumed, ranks=ranks) for ranks in cases)
    return Scaling(title=title, stages=stages, assumptions=assumed, estimates=found, judged=judged)


def verdict(scaling: Scaling, *, ranks: int = 4) -> Literal["moonshot", "reached", "missed", ""]:
    """How an estimate stands to what is wanted of so many devices, if anything is."""
    if not scaling.judged:
        return ""
    fps = scaling.fps(ranks)
    if fps >= MOONSHOT_FPS:
        return "moonshot"
    return "reached" if fps >= GOAL_FPS else "missed"


def _slowest(total: int, ranks: int) -> float:
    """How much longer the rank with most takes than an even share would."""
    return math.ceil(total / ranks) * ranks / total


def _exchange(calls: int, nbytes: float, assumed: Assumptions) -> float:
    return calls * assumed.call_us / 1000 + nbytes / GIGA / assumed.link_gb_per_s * 1000
