"""What stands in the cells of a pocket world: four layouts of a few primitives each."""

from __future__ import annotations

from typing import NamedTuple

CYLINDER, BOX, SPHERE, CONE = 1.0, 2.0, 3.0, 4.0

Colour = tuple[float, float, float]


class Prim(NamedTuple):
    """One primitive; `x z` from the cell's centre, heights above the ground, all in metres."""

    kind: float
    x: float
    z: float
    radius: float  # half side for a box
    bottom: float
    top: float
    colour: Colour
    depth: float = 0.0  # half side along z of a box that is not square


def _column(radius: float, height: float, colour: Colour, trim: Colour) -> tuple[Prim, ...]:
    """A column with a square base and capital."""
    wide = radius * 1.45
    return (
        Prim(CYLINDER, 0, 0, radius, 0.3, height - 0.3, colour),
        Prim(BOX, 0, 0, wide, 0.0, 0.3, trim),
        Prim(BOX, 0, 0, wide, height - 0.3, height, trim),
    )


def _pedestal(colour: Colour, ball: Colour, *, side: float, top: float) -> tuple[Prim, ...]:
    """A block that carries a sphere: the landmark of a world."""
    radius = side * 0.95
    return (
        Prim(BOX, 0, 0, side, 0.0, top, colour),
        Prim(SPHERE, 0, 0, radius, top, top + 2 * radius, ball),
    )


def _pine(trunk: Colour, leaves: Colour, *, radius: float, height: float) -> tuple[Prim, ...]:
    """A low-poly tree: a short trunk and two stacked cones."""
    return (
        Prim(CYLINDER, 0, 0, radius * 0.22, 0.0, 0.9, trunk),
        Prim(CONE, 0, 0, radius, 0.7, height * 0.72, leaves),
        Prim(CONE, 0, 0, radius * 0.72, height * 0.45, height, leaves),
    )


def _gate(pillar: Colour, beam: Colour) -> tuple[Prim, ...]:
    """Two round pillars under two beams along x."""
    return (
        Prim(BOX, 0, 0, 1.45, 3.3, 3.65, beam, 0.24),
        Prim(BOX, 0, 0, 1.15, 2.55, 2.8, pillar, 0.14),
        Prim(CYLINDER, -0.9, 0, 0.2, 0.0, 3.3, pillar),
        Prim(CYLINDER, 0.9, 0, 0.2, 0.0, 3.3, pillar),
    )


Cells = tuple[tuple[Prim, ...], ...]


def court(column: Colour, trim: Colour, block: Colour, ball: Colour) -> Cells:
    """Three columns and a ball on a pedestal."""
    columns = _column(0.45, 4.2, column, trim)
    return (columns, columns, columns, _pedestal(block, ball, side=0.55, top=1.1))


def meadow(column: Colour, trim: Colour, trunk: Colour, leaves: Colour) -> Cells:
    """Columns and trees by turns."""
    columns, trees = (
        _column(0.42, 3.4, column, trim),
        _pine(trunk, leaves, radius=1.1, height=3.8),
    )
    return (columns, trees, trees, columns)


def snow(pillar: Colour, cap: Colour, stone: Colour, lamp: Colour) -> Cells:
    """Two square pillars, a stone with a pointed cap and a lantern."""
    pillars = (Prim(BOX, 0, 0, 0.42, 0.0, 3.6, pillar), Prim(BOX, 0, 0, 0.6, 3.6, 3.9, cap))
    marker = (Prim(BOX, 0, 0, 0.55, 0.0, 1.5, stone), Prim(CONE, 0, 0, 0.75, 1.5, 2.7, cap))
    return (pillars, marker, _pedestal(stone, lamp, side=0.5, top=1.3), pillars)


def lagoon(pillar: Colour, beam: Colour, stone: Colour, roof: Colour) -> Cells:
    """Gates that stand in the water, and stone lanterns between them."""
    lantern = (
        Prim(BOX, 0, 0, 0.5, 0.0, 1.5, stone),
        Prim(BOX, 0, 0, 0.62, 1.5, 1.75, stone),
        Prim(CONE, 0, 0, 0.95, 1.75, 2.7, roof),
    )
    return (_gate(pillar, beam), lantern, lantern, _gate(pillar, beam))
