"""The pocket worlds as plain numbers: palettes, layouts, start views and captions.

A world repeats for ever: square cells of `CELL` metres in a 2x2 pattern, each cell with a few
primitives that stay inside it, so one can walk without end and never leaves what was trained.
World axes are those of the camera (x right, y DOWN, z forward), in metres; the eye is at y = 0 and
the ground at y = `EYE`. Everything here is fixed by hand: the worlds are learnt by heart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EYE = 1.5  # eye height above the ground, metres
CELL = 8.0  # side of one cell, metres
PERIOD = 2 * CELL  # the pattern repeats after this many metres in x and z
MAX_PRIMS = 4  # primitives per cell
OVERHEAD = 2.2  # metres; what hangs higher than this does not stop a walker
CYLINDER, BOX, SPHERE, CONE = 1.0, 2.0, 3.0, 4.0
RIDGE_POINTS = 24  # control points of the mountain silhouette, one per 15 degrees

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
    cells: tuple[tuple[Prim, ...], ...]  # cells (0,0), (1,0), (0,1), (1,1) as (x, z) parity
    starts: tuple[StartView, ...]
    words: dict[str, tuple[str, ...]]


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


def _court(column: Colour, trim: Colour, block: Colour, ball: Colour) -> Cells:
    """Three columns and a ball on a pedestal."""
    columns = _column(0.45, 4.2, column, trim)
    return (columns, columns, columns, _pedestal(block, ball, side=0.55, top=1.1))


def _meadow(column: Colour, trim: Colour, trunk: Colour, leaves: Colour) -> Cells:
    """Columns and trees by turns."""
    columns, trees = (
        _column(0.42, 3.4, column, trim),
        _pine(trunk, leaves, radius=1.1, height=3.8),
    )
    return (columns, trees, trees, columns)


def _snow(pillar: Colour, cap: Colour, stone: Colour, lamp: Colour) -> Cells:
    """Two square pillars, a stone with a pointed cap and a lantern."""
    pillars = (Prim(BOX, 0, 0, 0.42, 0.0, 3.6, pillar), Prim(BOX, 0, 0, 0.6, 3.6, 3.9, cap))
    marker = (Prim(BOX, 0, 0, 0.55, 0.0, 1.5, stone), Prim(CONE, 0, 0, 0.75, 1.5, 2.7, cap))
    return (pillars, marker, _pedestal(stone, lamp, side=0.5, top=1.3), pillars)


def _lagoon(pillar: Colour, beam: Colour, stone: Colour, roof: Colour) -> Cells:
    """Gates that stand in the water, and stone lanterns between them."""
    lantern = (
        Prim(BOX, 0, 0, 0.5, 0.0, 1.5, stone),
        Prim(BOX, 0, 0, 0.62, 1.5, 1.75, stone),
        Prim(CONE, 0, 0, 0.95, 1.75, 2.7, roof),
    )
    return (_gate(pillar, beam), lantern, lantern, _gate(pillar, beam))


def _dusk_court() -> Scene:
    red, dark, cream, gold = (
        (0.72, 0.25, 0.18),
        (0.48, 0.17, 0.15),
        (0.86, 0.70, 0.52),
        (0.98, 0.76, 0.25),
    )
    return Scene(
        name="dusk court",
        layout="dusk court",
        horizon=(0.98, 0.72, 0.50),
        zenith=(0.38, 0.36, 0.62),
        sun=(1.0, 0.86, 0.60),
        sun_azimuth_deg=35.0,
        sun_elevation_deg=14.0,
        ground_a=(0.83, 0.66, 0.47),
        ground_b=(0.76, 0.59, 0.42),
        mountain=(0.62, 0.42, 0.48),
        mountain_deg=7.0,
        ambient=0.58,
        fog_m=15.0,
        cells=_court(red, dark, cream, gold),
        starts=(
            StartView(
                "Red columns at dusk",
                0.4,
                -1.0,
                -14.0,
                "a sandy court of tall red columns at dusk, a golden ball on a pedestal",
                42,
            ),
            StartView(
                "The golden ball",
                10.0,
                9.0,
                38.0,
                "a warm sandy plaza with a golden ball on a pedestal and red columns at sunset",
                5,
            ),
        ),
        words={
            "place": (
                "a sandy court",
                "a sand court",
                "a desert court",
                "a warm sandy square",
                "a sandy plaza",
            ),
            "thing": (
                "tall red columns",
                "red columns",
                "rows of red columns",
                "red pillars",
                "a grid of tall red pillars",
            ),
            "time": (
                "at dusk",
                "at sunset",
                "in the evening",
                "in warm evening light",
                "under an orange sky",
            ),
            "extra": (
                "a golden ball on a pedestal",
                "a gold sphere on a stone block",
                "distant purple mountains",
                "light fog",
                "",
            ),
        },
    )


def _noon_meadow() -> Scene:
    white, grey, brown, green = (
        (0.90, 0.90, 0.86),
        (0.72, 0.74, 0.74),
        (0.42, 0.28, 0.18),
        (0.16, 0.46, 0.26),
    )
    return Scene(
        name="noon meadow",
        layout="noon meadow",
        horizon=(0.80, 0.91, 0.97),
        zenith=(0.30, 0.56, 0.90),
        sun=(1.0, 0.97, 0.86),
        sun_azimuth_deg=-50.0,
        sun_elevation_deg=38.0,
        ground_a=(0.46, 0.68, 0.30),
        ground_b=(0.40, 0.61, 0.27),
        mountain=(0.46, 0.62, 0.70),
        mountain_deg=8.0,
        ambient=0.62,
        fog_m=16.5,
        cells=_meadow(white, grey, brown, green),
        starts=(
            StartView(
                "White columns on a meadow",
                -0.4,
                7.0,
                6.0,
                "a green meadow with white marble columns and pine trees at noon",
                7,
            ),
            StartView(
                "Pines in the sun",
                8.4,
                0.2,
                110.0,
                "pine trees and white columns on green grass, a clear blue sky",
                11,
            ),
        ),
        words={
            "place": (
                "a green meadow",
                "green grass",
                "a grassy field",
                "a sunny meadow",
                "a green lawn",
            ),
            "thing": (
                "white columns and pine trees",
                "white marble columns",
                "pines and white pillars",
                "pine trees",
                "white pillars among pines",
            ),
            "time": (
                "at noon",
                "in bright daylight",
                "under a clear blue sky",
                "on a sunny day",
                "in summer",
            ),
            "extra": ("distant blue mountains", "a clear sky", "fresh air", "soft shadows", ""),
        },
    )


def _violet_snow() -> Scene:
    blue, ice, stone, lamp = (
        (0.20, 0.30, 0.55),
        (0.62, 0.74, 0.90),
        (0.34, 0.36, 0.50),
        (1.0, 0.62, 0.30),
    )
    return Scene(
        name="violet snow",
        layout="violet snow",
        horizon=(0.80, 0.66, 0.86),
        zenith=(0.16, 0.17, 0.42),
        sun=(0.86, 0.80, 1.0),
        sun_azimuth_deg=150.0,
        sun_elevation_deg=24.0,
        ground_a=(0.80, 0.84, 0.95),
        ground_b=(0.73, 0.77, 0.90),
        mountain=(0.46, 0.42, 0.66),
        mountain_deg=9.0,
        ambient=0.66,
        fog_m=14.5,
        cells=_snow(blue, ice, stone, lamp),
        starts=(
            StartView(
                "Blue pillars in the snow",
                0.2,
                8.6,
                168.0,
                "a snowy field with blue square pillars and orange lanterns in violet twilight",
                3,
            ),
            StartView(
                "Lanterns at twilight",
                1.0,
                14.6,
                205.0,
                "fresh snow at twilight, orange lanterns and blue columns, light fog",
                19,
            ),
        ),
        words={
            "place": (
                "a snowy field",
                "a snow field",
                "fresh snow",
                "a frozen plain",
                "a winter field",
            ),
            "thing": (
                "blue square pillars",
                "blue pillars",
                "blue pillars and orange lanterns",
                "dark blue square columns",
                "orange lanterns and blue columns",
            ),
            "time": (
                "in violet twilight",
                "at twilight",
                "under a purple sky",
                "at night",
                "in the cold night",
            ),
            "extra": (
                "distant violet mountains",
                "an orange lantern on a block",
                "light fog",
                "icy stones",
                "",
            ),
        },
    )


def _night_court() -> Scene:
    silver, shade, stone, moon = (
        (0.82, 0.88, 0.92),
        (0.58, 0.66, 0.76),
        (0.60, 0.64, 0.76),
        (1.0, 0.90, 0.50),
    )
    court = _dusk_court()
    return court._replace(
        name="night court",
        horizon=(0.22, 0.27, 0.46),
        zenith=(0.05, 0.06, 0.18),
        sun=(0.92, 0.94, 1.0),
        ground_a=(0.33, 0.36, 0.50),
        ground_b=(0.28, 0.31, 0.44),
        mountain=(0.13, 0.16, 0.32),
        cells=_court(silver, shade, stone, moon),
        starts=(
            StartView(
                "Moonlight",
                -1.2,
                6.4,
                20.0,
                "a stone court of tall silver columns at midnight, a pale moon ball on a pedestal",
                23,
            ),
        ),
        words={
            "place": (
                "a stone court",
                "a dark court",
                "a moonlit court",
                "a moonlit plaza",
                "a dark stone square",
            ),
            "thing": (
                "tall silver columns",
                "silver columns",
                "rows of silver columns",
                "silver pillars",
                "a grid of tall silver pillars",
            ),
            "time": (
                "at midnight",
                "in the moonlight",
                "under the moon",
                "under a black sky",
                "in the dark",
            ),
            "extra": (
                "a pale moon ball on a pedestal",
                "a pale sphere on a stone block",
                "dark mountains",
                "light fog",
                "",
            ),
        },
    )


def _autumn_meadow() -> Scene:
    white, grey, brown, rust = (
        (0.88, 0.82, 0.70),
        (0.70, 0.62, 0.52),
        (0.36, 0.22, 0.16),
        (0.80, 0.30, 0.10),
    )
    meadow = _noon_meadow()
    return meadow._replace(
        name="autumn meadow",
        horizon=(0.97, 0.90, 0.72),
        zenith=(0.55, 0.66, 0.76),
        sun=(1.0, 0.90, 0.66),
        ground_a=(0.80, 0.66, 0.30),
        ground_b=(0.74, 0.59, 0.26),
        mountain=(0.66, 0.56, 0.46),
        cells=_meadow(white, grey, brown, rust),
        starts=(
            StartView(
                "Rust and honey",
                7.4,
                1.0,
                -35.0,
                "a yellow autumn meadow with rust brown trees and honey columns in the afternoon",
                31,
            ),
            StartView(
                "An autumn alley",
                0.6,
                15.0,
                62.0,
                "rust brown trees and honey columns on dry yellow grass, a pale sky",
                37,
            ),
        ),
        words={
            "place": (
                "a yellow autumn meadow",
                "dry yellow grass",
                "an autumn field",
                "a yellow field",
                "an autumn lawn",
            ),
            "thing": (
                "honey columns and rust brown trees",
                "honey columns",
                "rust brown trees and honey pillars",
                "rust brown trees",
                "honey pillars among rust trees",
            ),
            "time": (
                "in autumn",
                "in the afternoon",
                "under a pale sky",
                "in october",
                "in the low sun",
            ),
            "extra": ("distant brown mountains", "fallen leaves", "dry air", "soft shadows", ""),
        },
    )


def _bright_snow() -> Scene:
    crimson, white, stone, gold = (
        (0.62, 0.20, 0.24),
        (0.95, 0.96, 0.98),
        (0.56, 0.60, 0.66),
        (0.95, 0.80, 0.25),
    )
    snow = _violet_snow()
    return snow._replace(
        name="bright snow",
        horizon=(0.90, 0.96, 0.98),
        zenith=(0.44, 0.74, 0.90),
        sun=(1.0, 0.98, 0.90),
        ground_a=(0.96, 0.97, 0.99),
        ground_b=(0.89, 0.92, 0.96),
        mountain=(0.62, 0.76, 0.84),
        cells=_snow(crimson, white, stone, gold),
        starts=(
            StartView(
                "A winter morning",
                -1.0,
                7.6,
                -28.0,
                "a white snow field with crimson pillars and yellow lanterns on a bright morning",
                41,
            ),
        ),
        words={
            "place": (
                "a white snow field",
                "a white plain",
                "bright snow",
                "a glittering snow field",
                "a white winter field",
            ),
            "thing": (
                "crimson square pillars",
                "crimson pillars",
                "crimson pillars and yellow lanterns",
                "crimson square columns",
                "yellow lanterns and crimson columns",
            ),
            "time": (
                "in the morning",
                "on a bright morning",
                "under a pale blue sky",
                "at sunrise",
                "on a cold bright day",
            ),
            "extra": (
                "distant pale mountains",
                "a yellow lantern on a block",
                "clear air",
                "glittering stones",
                "",
            ),
        },
    )


def _lagoon_day() -> Scene:
    red, black, stone, slate = (
        (0.86, 0.26, 0.16),
        (0.22, 0.20, 0.24),
        (0.74, 0.74, 0.70),
        (0.36, 0.42, 0.50),
    )
    return Scene(
        name="lagoon",
        layout="lagoon",
        horizon=(0.86, 0.95, 0.93),
        zenith=(0.24, 0.58, 0.76),
        sun=(1.0, 0.98, 0.88),
        sun_azimuth_deg=80.0,
        sun_elevation_deg=32.0,
        ground_a=(0.24, 0.66, 0.68),
        ground_b=(0.20, 0.59, 0.63),
        mountain=(0.36, 0.58, 0.50),
        mountain_deg=8.0,
        ambient=0.62,
        fog_m=16.0,
        cells=_lagoon(red, black, stone, slate),
        starts=(
            StartView(
                "Gates in the lagoon",
                3.4,
                -1.0,
                6.0,
                "a calm turquoise lagoon with vermilion gates and stone lanterns at high tide",
                53,
            ),
            StartView(
                "Between two gates",
                7.8,
                6.4,
                -62.0,
                "vermilion gates in a turquoise lagoon, a sea breeze, green hills",
                59,
            ),
        ),
        words={
            "place": (
                "a calm turquoise lagoon",
                "turquoise water",
                "a lagoon",
                "a calm lake",
                "shallow turquoise water",
            ),
            "thing": (
                "vermilion gates",
                "vermilion gates and stone lanterns",
                "gates in the water",
                "vermilion arches",
                "gates and lanterns of stone",
            ),
            "time": (
                "at high tide",
                "on a calm day",
                "in the sea breeze",
                "under a sea sky",
                "in spring",
            ),
            "extra": ("green hills", "low hills", "still water", "ripples", ""),
        },
    )


def _rose_lagoon() -> Scene:
    plum, dark, stone, roof = (
        (0.46, 0.16, 0.34),
        (0.26, 0.12, 0.28),
        (0.66, 0.52, 0.58),
        (0.40, 0.24, 0.42),
    )
    return _lagoon_day()._replace(
        name="rose lagoon",
        horizon=(1.0, 0.78, 0.70),
        zenith=(0.62, 0.48, 0.70),
        sun=(1.0, 0.92, 0.76),
        ground_a=(0.84, 0.54, 0.58),
        ground_b=(0.77, 0.48, 0.54),
        mountain=(0.56, 0.36, 0.52),
        cells=_lagoon(plum, dark, stone, roof),
        starts=(
            StartView(
                "Rose water",
                2.6,
                9.4,
                150.0,
                "a rose lagoon with plum gates at dawn, pink ripples",
                61,
            ),
            StartView(
                "A plum gate at dawn",
                11.6,
                -0.8,
                -8.0,
                "plum gates in pink water at dawn, rose hills",
                67,
            ),
        ),
        words={
            "place": (
                "a rose lagoon",
                "pink water",
                "a pink lagoon",
                "a rose lake",
                "shallow pink water",
            ),
            "thing": (
                "plum gates",
                "plum gates and stone lanterns",
                "plum gates in the water",
                "plum arches",
                "plum gates and lanterns",
            ),
            "time": (
                "at dawn",
                "at daybreak",
                "under a rose sky",
                "in pink light",
                "before sunrise",
            ),
            "extra": ("rose hills", "low hills", "still water", "pink ripples", ""),
        },
    )


def scenes() -> tuple[Scene, ...]:
    """All pocket worlds, in a fixed order (their index is part of the data's seeds)."""
    return (
        _dusk_court(),
        _noon_meadow(),
        _violet_snow(),
        _night_court(),
        _autumn_meadow(),
        _bright_snow(),
        _lagoon_day(),
        _rose_lagoon(),
    )


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
