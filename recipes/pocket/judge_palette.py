"""Which world's colours a picture has, and walks on which that can be asked.

A picture's palette is that of the world whose true picture from the same place has the nearest
colours of sky and ground; shapes play no part.
"""

from __future__ import annotations

import itertools

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_report import Figure, Goal
from recipes.pocket.judge_trial import SPLIT, Trial
from recipes.pocket.scenes import clearance
from recipes.pocket.walks import METRES, Walk, make_walk, walk_seed

ASIDE = 1.0  # metres that a walk keeps from what stands in any world
PATIENCE = 8  # latent frames after which the palette is looked at: 2 s


def clear_walk(trial: Trial, world: int, number: int, latents: int) -> Walk:
    """A held-out walk that would keep away from the objects of every world."""
    for attempt in itertools.count():
        walk = make_walk(world, walk_seed(SPLIT, number * 1000 + attempt), latents)
        places = walk.c2w[:, [0, 2], 3] * METRES
        if all(clearance(s, x, z) > ASIDE for s in trial.scenes for x, z in places):
            return walk
    raise AssertionError("counting has no end")


def palettes(trial: Trial, made: np.ndarray, walks: list[Walk], latent: int) -> np.ndarray:
    """The world whose palette each picture `[n, H, W, 3]` has, for its walk's pose at `latent`."""
    true = [
        np.concatenate([trial.true_at(walk, [latent], world) for walk in walks])
        for world in range(len(trial.scenes))
    ]
    return measures.nearest_palette(made, np.stack(true))


def share(name: str, hits: np.ndarray, goal: Goal | None, note: str = "") -> Figure:
    """How many of `hits` are true, in percent; not measured where there is none."""
    value = 100 * float(hits.mean()) if hits.size else None
    return Figure(
        name=name, value=value, unit="%", digits=1, goal=goal, note=note or f"of {hits.size}"
    )
