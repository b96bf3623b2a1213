"""Charts as PNG files, drawn with Pillow: stacked bars, and lines against a running number.

Knows nothing about what is shown. Panels stand below each other on one white sheet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

WIDTH = 1280
LEFT, RIGHT, TOP = 190, 40, 76
PANEL, BAR = 300, 42  # heights in pixels
GAP = 60
INK, FAINT, SHADE = "#1c2530", "#d7dde4", "#eef1f5"
# Distinct in hue and in lightness, so that they also differ in grey.
COLOURS = ("#2b5c8a", "#e69f3c", "#5aa469", "#b03a48", "#8d7cc3", "#54b4c7", "#7a7a7a", "#d98cb3")


class Bar(NamedTuple):
    """One row of a stacked chart: parts by name, in the unit of the chart."""

    label: str
    parts: Mapping[str, float]


class Stacked(NamedTuple):
    """Bars of stacked parts from one zero; `unit` stands at the axis."""

    title: str
    unit: str
    bars: Sequence[Bar]


class Lines(NamedTuple):
    """Curves against `x`; the part of `x` below `shaded` is marked with `shade_label`.

    A curve may have None where nothing was measured. `marks` are horizontal lines by label.
    """

    title: str
    unit: str
    x_label: str
    x: Sequence[float]
    curves: Mapping[str, Sequence[float | None]]
    shaded: float | None = None
    shade_label: str = ""
    marks: Mapping[str, float] = {}


def draw(path: Path, title: str, panels: Sequence[Stacked | Lines]) -> None:
    """Write the panels under one title to a PNG file. Raises: OSError."""
    heights = [_height(panel) for panel in panels]
    sheet = Image.new("RGB", (WIDTH, TOP + sum(heights) + 20), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((LEFT, 22), title, fill=INK, font=_font(24))
    top = TOP
    for panel, height in zip(panels, heights, strict=True):
        if isinstance(panel, Stacked):
            _stacked(pen, panel, top)
        else:
            _lines(pen, panel, top)
        top += height
    sheet.save(path, format="PNG", optimize=True)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers from `low` to at least `high`, at most about `most` of them."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if span / (m * power) <= most)
    first = math.floor(low / step)
    return [step * i for i in range(first, math.ceil(high / step) + 1)]


def _height(panel: Stacked | Lines) -> int:
    body = BAR * len(panel.bars) if isinstance(panel, Stacked) else PANEL
    return 66 + body + GAP


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _head(pen: ImageDraw.ImageDraw, top: int, title: str, names: Sequence[str]) -> None:
    """A panel's title, and below it what each colour stands for."""
    pen.text((LEFT, top), title, fill=INK, font=_font(19))
    x = LEFT
    for name, colour in zip(names, _colours(names), strict=True):
        pen.rectangle((x, top + 34, x + 14, top + 48), fill=colour)
        pen.text((x + 20, top + 31), name, fill=INK, font=_font(16))
        x += 20 + round(pen.textlength(name, font=_font(16))) + 24


def _colours(names: Sequence[str]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(names))]


def _stacked(pen: ImageDraw.ImageDraw, panel: Stacked, top: int) -> None:
    names = list(dict.fromkeys(name for bar in panel.bars for name in bar.parts))
    _head(pen, top, panel.title, names)
    top += 66
    bottom = top + BAR * len(panel.bars)
    scale = ticks(0, max(sum(bar.parts.values()) for bar in panel.bars) * 1.12)
    wide = (WIDTH - LEFT - RIGHT) / scale[-1]
    for value in scale:
        x = LEFT + value * wide
        pen.line((x, top, x, bottom), fill=FAINT)
        pen.text((x, bottom + 6), f"{value:g}", fill=INK, font=_font(16), anchor="ma")
    pen.text((LEFT - 12, bottom + 6), panel.unit, fill=INK, font=_font(16), anchor="ra")
    for row, bar in enumerate(panel.bars):
        y, x = top + row * BAR, float(LEFT)
        pen.text((LEFT - 12, y + BAR / 2), bar.label, fill=INK, font=_font(16), anchor="rm")
        for name, colour in zip(names, _colours(names), strict=True):
            end = x + bar.parts.get(name, 0.0) * wide
            if end - x >= 0.5:
                pen.rectangle((x, y + 6, end, y + BAR - 6), fill=colour)
            x = end
        total = f"{sum(bar.parts.values()):.4g}"
        pen.text((x + 8, y + BAR / 2), total, fill=INK, font=_font(16), anchor="lm")


def _lines(pen: ImageDraw.ImageDraw, panel: Lines, top: int) -> None:
    _head(pen, top, panel.title, list(panel.curves))
    top += 66
    bottom = top + PANEL
    known = [v for curve in panel.curves.values() for v in curve if v is not None]
    known += panel.marks.values()
    scale = ticks(0, max(known, default=1.0) * 1.02)
    first, last = panel.x[0], max(panel.x[-1], panel.x[0] + 1)
    high = PANEL / scale[-1]
    wide = (WIDTH - LEFT - RIGHT) / (last - first)
    if panel.shaded is not None and panel.shaded > first:
        edge = LEFT + (min(panel.shaded, last) - first) * wide
        pen.rectangle((LEFT, top, edge, bottom), fill=SHADE)
        pen.text((LEFT + 8, bottom - 24), panel.shade_label, fill=INK, font=_font(15))
    for value in scale:
        y = bottom - value * high
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=FAINT)
        pen.text((LEFT - 12, y), f"{value:g}", fill=INK, font=_font(16), anchor="rm")
    for value in ticks(first, last, most=10):
        if first <= value <= last:
            x = LEFT + (value - first) * wide
            pen.text((x, bottom + 6), f"{value:g}", fill=INK, font=_font(16), anchor="ma")
    pen.text((LEFT - 12, top - 34), panel.unit, fill=INK, font=_font(16), anchor="ra")
    pen.text(((LEFT + WIDTH) / 2, bottom + 28), panel.x_label, fill=INK, font=_font(16))
    marked: list[tuple[float, str]] = []
    for label, value in panel.marks.items():
        y = bottom - value * high
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=INK)
        marked.append((y, label))
    for curve, colour in zip(panel.curves.values(), _colours(list(panel.curves)), strict=True):
        _curve(pen, curve, colour, [(LEFT + (x - first) * wide) for x in panel.x], (bottom, high))
    for y, label in marked:
        box = pen.textbbox((WIDTH - RIGHT - 6, y - 4), label, font=_font(15), anchor="rd")
        pen.rectangle((box[0] - 4, box[1] - 2, box[2] + 4, box[3] + 1), fill="white")
        pen.text((WIDTH - RIGHT - 6, y - 4), label, fill=INK, font=_font(15), anchor="rd")


def _curve(
    pen: ImageDraw.ImageDraw,
    curve: Sequence[float | None],
    colour: str,
    across: Sequence[float],
    axis: tuple[int, float],
) -> None:
    """A line through the known points, a dot on each where there is room."""
    bottom, high = axis
    points = [(x, bottom - v * high) for x, v in zip(across, curve, strict=True) if v is not None]
    if len(points) > 1:
        pen.line(points, fill=colour, width=2)
    if len(points) <= 200:
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
