"""The pocket worlds as plain numbers: palettes, layouts, start views and captions.

A world repeats for ever: square cells of `CELL` metres in a 2x2 pattern, each cell with a few
primitives that stay inside it, so one can walk without end and never leaves what was trained.
World axes are those of the camera (x right, y DOWN, z forward), in metres; the eye is at y = 0 and
the ground at y = `EYE`. `worlds.toml` fixes everything by hand: the worlds are learnt by heart.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recipes.pocket.layouts import BOX, Cells, Colour, court, lagoon, meadow, snow

EYE = 1.5  # eye height above the ground, metres
CELL = 8.0  # side of one cell, metres
PERIOD = 2 * CELL  # the pattern repeats after this many metres in x and z
MAX_PRIMS = 4  # primitives per cell
OVERHEAD = 2.2  # metres; what hangs higher than this does not stop a walker
RIDGE_POINTS = 24  # control points of the mountain silhouette, one per 15 degrees


class StartView(NamedTuple):
    """A start picture: where the walker stands (metres) and looks (degrees, right is positive)."""

    name: str
    x: float
    z: float
    yaw_deg: float
    prompt: str
    seed: int


class Scene(NamedTuple):
    """One world: its light and colours (linear in 0..1), four cells, start views and words."""

    name: str
    layout: str  # worlds of one layout differ in light and colours only
    horizon: Colour
    zenith: Colour
    sun: Colour
    sun_azimuth_deg: float
    sun_elevation_deg: float
    ground_a: Colour
    ground_b: Colour
    mountain: Colour
    mountain_deg: float
    ambient: float
    fog_m: float
    cells: Cells  # cells (0,0), (1,0), (0,1), (1,1) as (x, z) parity
    starts: tuple[StartView, ...]
    words: dict[str, tuple[str, ...]]


LAYOUTS = {"dusk court": court, "noon meadow": meadow, "violet snow": snow, "lagoon": lagoon}
WORLDS = Path(__file__).with_name("worlds.toml")


@cache
def scenes() -> tuple[Scene, ...]:
    """All pocket worlds, in a fixed order (their index is part of the data's seeds)."""
    with WORLDS.open("rb") as file:
        return tuple(_scene(entry) for entry in tomllib.load(file)["world"])


def _scene(entry: dict[str, Any]) -> Scene:
    """A world from its entry in `WORLDS`."""
    colours = {name: tuple(colour) for name, colour in entry.pop("colours").items()}
    starts = tuple(StartView(**view) for view in entry.pop("starts"))
    words = {part: tuple(choices) for part, choices in entry.pop("words").items()}
    light: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()
    }
    cells = LAYOUTS[entry["layout"]](**colours)
    return Scene(**light, cells=cells, starts=starts, words=words)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many wordings of a world, parts in changing order, sometimes only a few of them."""
    place, thing, time, extra = (
        str(rng.choice(scene.words[k])) for k in ("place", "thing", "time", "extra")
    )
    patterns = (
        f"{place} with {thing} {time}",
        f"{place} of {thing} {time}, {extra}",
        f"{thing} {time}, {place}",
        f"{place} {time}, {extra}",
        f"{thing}, {extra}",
        f"{thing} on {place} {time}, {extra}",
    )
    return str(rng.choice(patterns)).strip(" ,")


def clearance(scene: Scene, x: float, z: float) -> float:
    """Metres from a point to the nearest object's footprint (circles around boxes)."""
    best = np.inf
    cell_x, cell_z = np.floor(x / CELL), np.floor(z / CELL)
    for ix in (cell_x - 1, cell_x, cell_x + 1):
        for iz in (cell_z - 1, cell_z, cell_z + 1):
            prims = scene.cells[int(ix % 2) + 2 * int(iz % 2)]
            for p in prims:
                if p.bottom > OVERHEAD:
                    continue
                reach = p.radius * (1.2 if p.kind == BOX else 1.0)
                centre = ((ix + 0.5) * CELL + p.x, (iz + 0.5) * CELL + p.z)
                best = min(best, float(np.hypot(x - centre[0], z - centre[1])) - reach)
    return best


class SceneArrays(NamedTuple):
    """A scene as float32 arrays for the renderer."""

    prims: np.ndarray  # [4, MAX_PRIMS, 10]: kind x z radius y_top y_bottom r g b depth (y down)
    light: (
        np.ndarray
    )  # [8, 3]: horizon zenith sun ground_a ground_b mountain sun_dir (ambient fog mountain_rad)
    ridge: np.ndarray  # [RIDGE_POINTS] silhouette heights in radians
    tiles: np.ndarray  # [4, 4] blend of ground_a and ground_b per 4 m tile of the period


def arrays(scene: Scene) -> SceneArrays:
    """The renderer's view of `scene`; a pure function, same bits each time."""
    prims = np.zeros((4, MAX_PRIMS, 10), np.float32)
    for i, cell in enumerate(scene.cells):
        assert len(cell) <= MAX_PRIMS, "a cell holds at most MAX_PRIMS primitives"
        for j, p in enumerate(cell):
            heights = EYE - p.top, EYE - p.bottom
            prims[i, j] = (p.kind, p.x, p.z, p.radius, *heights, *p.colour, p.depth or p.radius)
    az, el = np.radians(scene.sun_azimuth_deg), np.radians(scene.sun_elevation_deg)
    sun_dir = (np.sin(az) * np.cos(el), -np.sin(el), np.cos(az) * np.cos(el))
    numbers = (scene.ambient, scene.fog_m, np.radians(scene.mountain_deg))
    light = np.array(
        [
            scene.horizon,
            scene.zenith,
            scene.sun,
            scene.ground_a,
            scene.ground_b,
            scene.mountain,
            sun_dir,
            numbers,
        ],
        np.float32,
    )
    rng = np.random.default_rng(len(scene.layout) * 1000 + ord(scene.layout[0]))
    ridge = (rng.uniform(0.25, 1.0, RIDGE_POINTS) * numbers[2]).astype(np.float32)
    parity = np.indices((4, 4)).sum(0) % 2
    tiles = (parity * 0.8 + rng.uniform(0.0, 0.35, (4, 4))).astype(np.float32)
    return SceneArrays(prims, light, ridge, tiles)
