"""What a cheaper way of computing does to the picture: the figures of `bench quality`.

Two worlds walk the same walks from the gallery's start pictures: the reference, exact and in the
same dtype, and the candidate. Three sessions per walk: the reference; the candidate on the
reference's own past, so that every chunk is judged by itself (PSNR); and the candidate left to
itself, whose errors feed on themselves (drift: edge energy and colour at the end of the walks).
Knows nothing about options.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ConfigError
from worldline.media.gallery import Start, read_gallery
from worldline.runtime.hub import packaged
from worldline.runtime.state import SessionState

if TYPE_CHECKING:
    from worldline.runtime.engine import Session, World

MIN_PSNR_DB = 35.0
MAX_DRIFT = 0.10
EQUAL_DB = 99.0  # what two equal pictures are given
LATE_SHARE = 0.25  # of a walk, at its end: where drift is looked for
GALLERY_FAMILY = "pocket"
WALK = (("w",), ("w", "l"), ("l",), ("w",), ("w", "j"), ("j",), (), ("s",))
STRIDE = 3  # chunks with the same keys

Frames = NDArray[np.uint8]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two worlds that are compared."""

    mode: str
    dtype: str
    kv: str
    steps: int


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of the late frames of all walks; `change` is relative to the reference."""

    reference: float
    candidate: float
    change: float


class QualityFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. PSNR in dB over the frames of every chunk, on the reference's past.

    `drift` holds edge energy (mean absolute difference of neighbouring pixels, 0..255) and the mean
    of each colour (0..255) over the last quarter of the free walks. `kept` says that no frame is
    worse than `MIN_PSNR_DB` and no statistic further off than `MAX_DRIFT`.
    """

    model: str
    weights: str
    reference: Side
    candidate: Side
    walks: int
    chunks: int
    psnr_mean: float
    psnr_p5: float
    psnr_min: float
    drift: dict[str, Drift]
    kept: bool


def gallery_starts(count: int) -> list[Start]:
    """The first `count` start pictures of the packaged gallery, all of them if it has fewer.

    Raises: ConfigError for none, CheckpointError when the package has no gallery.
    """
    if count < 1:
        raise ConfigError("no walk to judge", expected="1 or more", got=count)
    return read_gallery(packaged(GALLERY_FAMILY) / "gallery", count)


def measure_quality(
    reference: World,
    candidate: World,
    starts: Sequence[Start],
    *,
    chunks: int,
    on_chunk: Callable[[int, int], None] = lambda i, n: None,
) -> QualityFigures:
    """Walk `chunks` chunks from every start and compare. `on_chunk(done, total)` after each chunk.

    Raises: ConfigError for numbers that do not fit.
    """
    if chunks < 1:
        raise ConfigError("nothing to compare", expected="1 chunk or more", got=chunks)
    ratios: list[float] = []
    late: dict[str, list[Frames]] = {"reference": [], "candidate": []}
    total = len(starts) * chunks
    for number, start in enumerate(starts):
        walk = _Walk(reference, candidate, start)
        for index in range(chunks):
            compared, free = walk.advance()
            ratios += compared
            if index >= int(chunks * (1 - LATE_SHARE)):
                for name, frames in free.items():
                    late[name].append(frames)
            on_chunk(number * chunks + index + 1, total)
        walk.close()
    return _figures(reference, candidate, ratios, late, walks=len(starts), chunks=chunks)


class _Walk:
    """Three sessions from one start, advanced together."""

    def __init__(self, reference: World, candidate: World, start: Start) -> None:
        def opened(world: World) -> Session:
            return world.start(start.image, start.prompt, start.seed)

        self._reference = opened(reference)
        self._led, self._free = opened(candidate), opened(candidate)
        self._index = 0

    def advance(self) -> tuple[list[float], dict[str, Frames]]:
        """One chunk of each: PSNR of every frame on the reference's past, and the free frames."""
        keys = [WALK[self._index // STRIDE % len(WALK)]] * self._reference.chunk
        self._index += 1
        follow(self._led.state, self._reference.state)
        led = self._led.step(keys).frames
        true = self._reference.step(keys).frames
        return [psnr(a, b) for a, b in zip(led, true, strict=True)], {
            "reference": true,
            "candidate": self._free.step(keys).frames,
        }

    def close(self) -> None:
        for session in (self._reference, self._led, self._free):
            session.close()


def follow(led: SessionState, leader: SessionState) -> None:
    """Give `led` the past of `leader`, as if it had made it; their settings must be equal.

    A decoder of another kind keeps its own past.
    """
    led.kv.adopt(leader.kv)
    led.camera, led.prompt = leader.camera, leader.prompt
    if led.decoder is None or type(led.decoder) is type(leader.decoder):
        led.decoder = leader.decoder
    led.next_chunk, led.anchor = leader.next_chunk, leader.anchor


def psnr(a: Frames, b: Frames) -> float:
    """PSNR of two pictures in dB; equal ones give `EQUAL_DB`."""
    error = float(np.square(a.astype(np.float64) - b.astype(np.float64)).mean())
    return EQUAL_DB if error == 0 else 10 * float(np.log10(255.0**2 / error))


def statistics(frames: Sequence[Frames]) -> dict[str, float]:
    """What drift would change, as means over all frames: edge energy and the three colours."""
    edges, colours = [], []
    for picture in itertools.chain.from_iterable(frames):
        wide = picture.astype(np.float32)  # H W 3
        across, down = (np.abs(np.diff(wide, axis=axis)).mean() for axis in (1, 0))
        edges.append((across + down) / 2)
        colours.append(wide.mean(axis=(0, 1)))
    red, green, blue = np.mean(colours, axis=0)
    edge = float(np.mean(edges))
    return {"edge_energy": edge, "red": float(red), "green": float(green), "blue": float(blue)}


def _figures(
    reference: World,
    candidate: World,
    ratios: list[float],
    late: dict[str, list[Frames]],
    *,
    walks: int,
    chunks: int,
) -> QualityFigures:
    ours, theirs = statistics(late["reference"]), statistics(late["candidate"])
    drift = {
        name: Drift(
            reference=round(value, 3),
            candidate=round(theirs[name], 3),
            change=round(theirs[name] / max(value, 1e-6) - 1, 4),
        )
        for name, value in ours.items()
    }
    steady = all(abs(one.change) <= MAX_DRIFT for one in drift.values())
    return QualityFigures(
        model=reference.info.model,
        weights=reference.info.weights,
        reference=_side(reference),
        candidate=_side(candidate),
        walks=walks,
        chunks=chunks,
        psnr_mean=round(float(np.mean(ratios)), 2),
        psnr_p5=round(float(np.percentile(ratios, 5)), 2),
        psnr_min=round(min(ratios), 2),
        drift=drift,
        kept=min(ratios) >= MIN_PSNR_DB and steady,
    )


def _side(world: World) -> Side:
    info = world.info
    return Side(mode=info.mode, dtype=info.dtype, kv=world.options.kv, steps=info.steps)


def as_table(figures: QualityFigures) -> str:
    """The figures as lines of text."""
    a, b = figures.reference, figures.candidate
    lines = [
        f"{figures.model}, weights {figures.weights or 'unnamed'}: {b.mode} {b.dtype}, kv {b.kv}, "
        f"{b.steps} steps, against {a.mode} {a.dtype}, kv {a.kv}, {a.steps} steps",
        f"{figures.walks} walks of {figures.chunks} chunks; on the same past PSNR mean "
        f"{figures.psnr_mean:.1f} dB, 5 % below {figures.psnr_p5:.1f}, worst frame "
        f"{figures.psnr_min:.1f} (wanted {MIN_PSNR_DB:.0f})",
        f"left to itself, last {LATE_SHARE:.0%} of the walks (wanted within {MAX_DRIFT:.0%}):",
    ]
    lines += [
        f"  {name:<12}{one.reference:>9.2f} -> {one.candidate:>7.2f}  {one.change:+.1%}"
        for name, one in figures.drift.items()
    ]
    return "\n".join([*lines, "kept" if figures.kept else "NOT kept"])


def as_markdown(figures: QualityFigures) -> str:
    """The figures as a table for docs/benchmarks.md."""
    b = figures.candidate
    names = list(figures.drift)
    head = ("model", "candidate", "walks x chunks", "PSNR mean", "5 %", "worst", *names, "verdict")
    cells = (
        figures.model,
        f"{b.mode}, {b.dtype}, kv {b.kv}",
        f"{figures.walks} x {figures.chunks}",
        f"{figures.psnr_mean:.1f}",
        f"{figures.psnr_p5:.1f}",
        f"{figures.psnr_min:.1f}",
        *(f"{figures.drift[name].change:+.1%}" for name in names),
        "kept" if figures.kept else "not kept",
    )
    rows = (head, ("---",) * len(head), cells)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
