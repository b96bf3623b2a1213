"""From the hand to the photon: what a browser on the page measured, as figures.

Input-to-photon is the time of a key event in the browser to the moment at which the first picture
that shows it is on the display. Its parts add up to it: inbox (hand to server), wait (until a chunk
samples the hands), denoise, decode (and what else the model does), encode, network, client
(decoding in the browser), queue (until the picture's turn) and display. Transport is from a frame
that is encoded to the same frame decoded in the browser.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from worldline.bench.arrival import Expected, Parts, expected
from worldline.bench.picture import Bar, Lines, Stacked
from worldline.bench.walker import Walk
from worldline.core.errors import ProtocolError

PARTS: Final = (
    "inbox",
    "wait",
    "denoise",
    "decode",
    "encode",
    "network",
    "client",
    "queue",
    "display",
)
ALLOWANCE_MS: Final = 100.0  # above the formula's 95th percentile


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of some milliseconds."""

    mean: float
    p50: float
    p95: float
    p99: float
    most: float
    count: int


class LatencyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; shares are of 1; `bitrate` in Mbit/s."""

    model: str
    size: str
    format: str
    fps: float
    video_fps: int
    seconds: float
    total: Spread
    parts: dict[str, Spread]
    transport: Spread
    transport_network: Spread
    transport_decoding: Spread
    expected: Expected
    round_trip: float
    stalls: int
    stall_rate: float
    deadline_misses: int
    real_time_factor: float
    bitrate: float
    dropped: int
    levers: dict[str, int]

    @property
    def kept(self) -> bool:
        """Whether the 95th percentile is within the formula's plus 100 ms."""
        return self.total.p95 <= self.expected.p95 + ALLOWANCE_MS


def spread(values: Iterable[float]) -> Spread:
    """Percentiles by the nearest rank. Raises: ProtocolError of nothing."""
    found = sorted(values)
    if not found:
        raise ProtocolError("nothing was measured", expected="inputs that were shown")
    return Spread(
        mean=statistics.fmean(found),
        p50=_rank(found, 50),
        p95=_rank(found, 95),
        p99=_rank(found, 99),
        most=found[-1],
        count=len(found),
    )


def _rank(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def figures_of(walk: Walk) -> LatencyFigures:
    """What a walk says. Raises: ProtocolError when no input was seen to be shown."""
    shown = [p for p in walk.presses.values() if p.kind == "keys" and p.total_ms is not None]
    parts = [p.parts for p in shown if p.parts is not None]
    clock = walk.clock
    if clock is None or not parts or not walk.chunks:
        raise ProtocolError("nothing was measured", expected="inputs that were shown")
    frames = [frame for frame in walk.frames.values() if frame.encoded_ms > 0]
    ready = {frame.number: frame.encoded_ms - clock.offset_ms for frame in frames}
    spreads = {name: spread(part[name] for part in parts) for name in PARTS}
    scene = walk.scene
    return LatencyFigures(
        model=scene.model,
        size=f"{scene.width}x{scene.height}",
        format=scene.format,
        fps=_median(walk.fps),
        video_fps=scene.fps,
        seconds=walk.seconds,
        total=spread(p.total_ms for p in shown if p.total_ms is not None),
        parts=spreads,
        transport=spread(f.decoded_ms - ready[f.number] for f in frames),
        transport_network=spread(f.received_ms - ready[f.number] for f in frames),
        transport_decoding=spread(f.decoded_ms - f.received_ms for f in frames),
        expected=expected(_formula(walk, spreads)),
        round_trip=clock.rtt_ms,
        stalls=walk.stalls,
        stall_rate=walk.stall_rate,
        deadline_misses=walk.chunks[-1].misses - walk.chunks[0].misses,
        real_time_factor=_median([c.real_time_factor for c in walk.chunks]),
        bitrate=statistics.fmean(walk.kbps or [0.0]) / 1000,
        dropped=walk.dropped,
        levers=dict(Counter(lever for chunk in walk.chunks for lever in chunk.levers)),
    )


def _formula(walk: Walk, spreads: dict[str, Spread]) -> Parts:
    """The formula's letters, each by its median."""

    def stage(name: str) -> float:
        return _median([chunk.stages.get(name, 0.0) for chunk in walk.chunks])

    frames = max(1.0, _median([float(chunk.frames) for chunk in walk.chunks]))
    return Parts(
        video=walk.scene.chunk_ms,
        made=stage("step"),
        denoise=stage("denoise"),
        decode=stage("decode") / walk.scene.chunk,
        encode=stage("encode") / frames,
        network=walk.clock.rtt_ms if walk.clock is not None else 0.0,
        queue=spreads["queue"].p50,
        display=spreads["display"].p50,
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def headline(figures: LatencyFigures) -> str:
    """One line for the top of a picture."""
    return f"{figures.model} {figures.size}, {figures.format}: from the hand to the photon"


def as_panels(figures: LatencyFigures) -> list[Stacked | Lines]:
    """For `bench.picture.draw`."""
    bars = [
        Bar(label, {name: getattr(figures.parts[name], label) for name in PARTS})
        for label in ("p50", "p95")
    ]
    formula = figures.expected
    bars.append(Bar("formula mean", {"formula": formula.mean}))
    bars.append(Bar("formula p95", {"formula": formula.p95}))
    return [Stacked("Input to photon, by part (parts of p95 are each part's own)", "ms", bars)]
