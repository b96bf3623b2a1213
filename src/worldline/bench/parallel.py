"""`worldline bench parallel`: one world on several ranks, held against one rank and the formula.

Every number of ranks walks the same walks as one rank. What left each rank is counted and held
against `runtime.parallel.expected`, latents are compared, chunks are timed. Counts are those of
chunks behind the roll-over of the window, one of them each. Knows nothing about processes: what
starts the ranks is `parallel_ranks`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.bench.chunk import controls, warmup_chunks
from worldline.bench.machine import Machine
from worldline.runtime.parallel.expected import Sent, Sharing, expected, formula

if TYPE_CHECKING:
    from worldline.runtime.engine import World
    from worldline.runtime.parallel.group import Group
    from worldline.runtime.session import Session

TOLERANCE = 1e-5  # of latents in float32; other types round, so their difference is only told
SEED = 42
AUTOENCODER = "vae"  # names of its own traffic begin so: the formula is the transformer's


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """One walk to compare: pixels, and latent frames of a chunk; None is the model's own."""

    width: int | None = None
    height: int | None = None
    chunk: int | None = None


class WalkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank saw of a walk. `calls` and `nbytes` left it in a chunk, by name."""

    sharing: Sharing
    chunk_ms: tuple[float, ...]
    calls: dict[str, int]
    nbytes: dict[str, int]
    frames_per_chunk: int


class ParallelCase(msgspec.Struct, frozen=True, kw_only=True):
    """One walk on several ranks, per chunk.

    `sent_bytes` of all ranks and `calls` of each, by name, and what is `expected` of them.
    `formula_bytes` is 4 (N/P) d B (P-1)/P x blocks x passes times the ranks; the context pass saves
    half of it in its last block. `max_abs` is between latents of these ranks and of one,
    `apart` between any two of these ranks.
    """

    ranks: int
    tokens: int
    even: bool
    max_abs: float
    apart: float
    calls: dict[str, int]
    expected_calls: dict[str, int]
    sent_bytes: dict[str, int]
    expected_bytes: dict[str, int]
    formula_calls: int
    formula_bytes: int
    other_calls: int
    other_bytes: int
    chunk_ms: float
    one_rank_ms: float
    fps: float

    @property
    def as_expected(self) -> bool:
        """Whether what was counted is what was computed."""
        counted = self.calls == self.expected_calls and self.sent_bytes == self.expected_bytes
        return counted and self.apart == 0


class ParallelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of all walks on all numbers of ranks. `link` is how ranks speak."""

    model: str
    device: str
    dtype: str
    link: str
    chunks: int
    machine: Machine
    cases: tuple[ParallelCase, ...]

    @property
    def kept(self) -> bool:
        """Whether bytes, calls and, in float32, latents are what they should be."""
        equal = self.dtype != "float32" or all(case.max_abs <= TOLERANCE for case in self.cases)
        return equal and all(case.as_expected for case in self.cases)


def walk(
    world: World, group: Group, asked: Walk, chunks: int
) -> tuple[WalkReport, NDArray[np.float32]]:
    """Walk until the window has rolled over and then `chunks` more; all latents.

    They are `[1, 16, T, h, w]`. What is counted and timed are the last `chunks`.
    """
    session = world.start(
        picture(world.info.width, world.info.height),
        "a place to measure",
        SEED,
        width=asked.width,
        height=asked.height,
        chunk=asked.chunk,
        keep_latents=True,
    )
    with session:
        settled = warmup_chunks(session, world.components.vae.stationary_latent)
        spent: list[float] = []
        frames = 0
        for index in range(settled + chunks):
            if index == settled:
                group.traffic.clear()
            start = time.perf_counter()
            frames = len(session.step(controls(session, index)).frames)
            spent.append((time.perf_counter() - start) * 1000)
        film = session.state.film
        assert film is not None, "asked for"
        latents = np.concatenate([chunk.float().numpy() for chunk in film], axis=2)
        report = WalkReport(
            sharing=_sharing(session, group.size),
            chunk_ms=tuple(round(ms, 3) for ms in spent[settled:]),
            calls=_per_chunk(group.traffic.calls, chunks),
            nbytes=_per_chunk(group.traffic.nbytes, chunks),
            frames_per_chunk=frames,
        )
    return report, latents


def compare(
    reports: Sequence[WalkReport],
    latents: Sequence[NDArray[np.float32]],
    *,
    alone: tuple[WalkReport, NDArray[np.float32]],
) -> ParallelCase:
    """What all ranks of a walk saw, in order, beside the same walk on one rank."""
    sharing = reports[0].sharing
    wanted, whole = expected(sharing), formula(sharing)
    sent: Counter[str] = Counter()
    for report in reports:
        sent.update(report.nbytes)
    own = {name for name in sent if not name.startswith(AUTOENCODER)}
    calls = reports[0].calls
    slowest = max(float(np.median(report.chunk_ms)) for report in reports)
    return ParallelCase(
        ranks=sharing.ranks,
        tokens=sharing.tokens,
        even=sharing.tokens % sharing.ranks == 0 == sharing.heads % sharing.ranks,
        max_abs=_farthest(latents[:1], alone[1]),
        apart=_farthest(latents[1:], latents[0]),
        calls={name: n for name, n in sorted(calls.items()) if name in own},
        expected_calls={name: wanted[name].calls for name in sorted(wanted)},
        sent_bytes={name: sent[name] for name in sorted(own)},
        expected_bytes={name: wanted[name].nbytes for name in sorted(wanted)},
        formula_calls=whole.calls,
        formula_bytes=whole.nbytes,
        other_calls=sum(n for name, n in calls.items() if name not in own),
        other_bytes=sum(n for name, n in sent.items() if name not in own),
        chunk_ms=round(slowest, 2),
        one_rank_ms=round(float(np.median(alone[0].chunk_ms)), 2),
        fps=round(1000 * reports[0].frames_per_chunk / slowest, 2),
    )


def as_table(figures: ParallelFigures) -> str:
    """The figures as lines of text."""
    where = figures.machine
    lines = [
        f"{figures.model}, {figures.dtype} on {figures.device}, ranks speak {figures.link}",
        f"{where.processor}, {where.cores} cores, torch {where.torch}, commit {where.commit}",
        "ranks tokens        blocks: calls   MB sent  expected   formula   head  autoencoder"
        "   max abs    ms/chunk (one rank)",
    ]
    for case in figures.cases:
        blocks = [name for name in case.calls if name != "flow"]
        sent, wanted = (
            Sent(sum(calls[name] for name in blocks), sum(nbytes[name] for name in blocks))
            for calls, nbytes in (
                (case.calls, case.sent_bytes),
                (case.expected_calls, case.expected_bytes),
            )
        )
        lines.append(
            f"{case.ranks:>5} {case.tokens:>6} {'even' if case.even else 'uneven':>6}"
            f" {sent.calls:>14} {sent.nbytes / 1e6:>9.3f} {wanted.nbytes / 1e6:>9.3f}"
            f" {case.formula_bytes / 1e6:>9.3f} {case.sent_bytes['flow'] / 1e6:>6.3f}"
            f" {case.other_bytes / 1e6:>12.3f} {case.max_abs:>9.1e}"
            f" {case.chunk_ms:>11.2f} ({case.one_rank_ms:.2f})"
        )
    lines.append("as the formula says, and equal" if figures.kept else "NOT AS EXPECTED")
    return "\n".join(lines)


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture, uint8 `H W 3`, the same on every rank."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return np.stack(channels, axis=-1).astype(np.uint8)  # H W 3


def _sharing(session: Session, ranks: int) -> Sharing:
    state, dit = session.state, session.engine.dit
    return Sharing(
        ranks=ranks,
        tokens=session.chunk * state.geometry.tokens_per_frame,
        width=dit.params.dim,
        heads=dit.params.num_heads,
        layers=dit.params.num_layers,
        steps=len(state.schedule.timesteps),
        itemsize=dit.dtype.itemsize,
        values=4 * dit.params.out_dim,
    )


def _per_chunk(counted: Counter[str], chunks: int) -> dict[str, int]:
    """Of one chunk, which each of them must have had."""
    uneven = [name for name, count in counted.items() if count % chunks]
    assert not uneven, f"chunks sent different amounts: {uneven}"
    return {name: count // chunks for name, count in counted.items()}


def _farthest(some: Sequence[NDArray[np.float32]], other: NDArray[np.float32]) -> float:
    return max((float(np.abs(one - other).max()) for one in some), default=0.0)
