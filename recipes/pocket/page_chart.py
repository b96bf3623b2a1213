"""Small line charts as inline SVG."""

from __future__ import annotations

import math
from html import escape

from recipes.pocket.judge_report import Chart

WIDTH, HEIGHT = 500, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 34
COLOURS = "#3b6fd4", "#d9822b", "#1a9e6e", "#a454c4"
TICKS = 5


def draw_chart(chart: Chart) -> str:
    """One `<svg>`; values that are no numbers leave gaps out."""
    curves = {name: _points(chart.x, ys) for name, ys in chart.curves.items()}
    ys = [y for points in curves.values() for _, y in points] + list(chart.band or ())
    if not chart.x or not ys:
        return ""
    x_scale = _Scale(min(chart.x), max(chart.x), LEFT, WIDTH - RIGHT)
    y_scale = _Scale(*_padded(min(ys), max(ys)), HEIGHT - BOTTOM, TOP)
    parts = [_band(chart, y_scale), *_grid(x_scale, y_scale)]
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        line = " ".join(f"{x_scale.at(x):.1f},{y_scale.at(y):.1f}" for x, y in points)
        title = f"<title>{escape(name)}</title>"
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2">'
            f"{title}</polyline>"
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f"<title>{escape(chart.title)}</title>{''.join(parts)}{_labels(chart)}</svg>"
    )


class _Scale:
    """From values to pixels."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0
        self.first, self.last = first, last

    def at(self, value: float) -> float:
        """The pixel of a value."""
        part = (value - self.low) / (self.high - self.low)
        return self.first + part * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Round numbers inside the range."""
        rough = (self.high - self.low) / TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        count = math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9)
        return [step * (math.ceil(self.low / step - 1e-9) + i) for i in range(count + 1)]


def _points(xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or 0.5
    return low - (room if low != 0 else 0), high + room


def _band(chart: Chart, scale: _Scale) -> str:
    if chart.band is None:
        return ""
    low, high = (scale.at(value) for value in chart.band)
    return (
        f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" y="{high:.1f}" '
        f'height="{low - high:.1f}" style="fill: var(--band)"/>'
    )


def _grid(x: _Scale, y: _Scale) -> list[str]:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
            'style="stroke: var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in x.ticks():
        parts.append(
            f'<text x="{x.at(value):.1f}" y="{HEIGHT - BOTTOM + 15}" '
            f'text-anchor="middle">{value:g}</text>'
        )
    return parts


def _labels(chart: Chart) -> str:
    names = "".join(
        f'<tspan dx="10" style="fill: {colour}">{escape(name)}</tspan>'
        for name, colour in zip(chart.curves, COLOURS, strict=False)
    )
    return (
        f'<text x="{LEFT}" y="14"><tspan style="fill: var(--ink)">{escape(chart.title)}</tspan>'
        f"{names}</text>"
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(chart.x_label)} · {escape(chart.y_label)}</text>"
    )
