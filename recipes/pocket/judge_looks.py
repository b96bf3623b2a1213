"""Looking now and then at long walks: pictures, true ones beside them, and numbers of both.

After some seconds the model is somewhere else than the true walk, so pictures are not compared one
by one but as a population: with the true renders along the same walk, quarter of the time by
quarter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_objects import count_each
from recipes.pocket.scenes import Scene
from recipes.pocket.walks import Walk

QUARTERS = 4
STRENGTHS = "edges", "sharpness", "bands", "objects"  # judged as made over true


class Looks(NamedTuple):
    """Pictures `[n, k, H, W, 3]` of `walks` at the latent frames `at`, made and true."""

    walks: list[Walk]
    at: np.ndarray
    made: np.ndarray
    true: np.ndarray


class Numbers(NamedTuple):
    """One entry per look of all walks; `values` of STRENGTHS are `[2, N]` (made, true)."""

    at: np.ndarray  # [N] latent frames
    values: dict[str, np.ndarray]
    colour: np.ndarray  # [N] colour error of each picture against its true one

    def ratio(self, name: str, part: np.ndarray) -> float:
        """Mean of the made over the mean of the true ones, of the looks in `part`."""
        made, true = self.values[name][:, part].mean(-1)
        return float(made / max(float(true), 1e-6))

    def quarters(self, length: int) -> list[np.ndarray]:
        """Which looks fall into each quarter of the first `length` latent frames."""
        which = (self.at - 1) * QUARTERS // length
        parts = [which == quarter for quarter in range(QUARTERS)]
        return [part for part in parts if part.any()]

    def by_quarter(self, name: str, length: int) -> list[float]:
        """Ratios of STRENGTHS, or the mean colour error, quarter by quarter."""
        if name == "colour":
            return [float(self.colour[part].mean()) for part in self.quarters(length)]
        return [self.ratio(name, part) for part in self.quarters(length)]


def numbers_of(runs: list[Looks], scenes: tuple[Scene, ...]) -> Numbers:
    """All numbers of some runs; `scenes` by the walks' scene index."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in STRENGTHS}
    for run in runs:
        for name, found in _strengths(run, scenes).items():
            values[name].append(found.reshape(2, -1))
    return Numbers(
        np.concatenate([np.tile(run.at, len(run.walks)) for run in runs]),
        {name: np.concatenate(found, axis=1) for name, found in values.items()},
        np.concatenate([_colour(run).ravel() for run in runs]),
    )


def _strengths(run: Looks, scenes: tuple[Scene, ...]) -> dict[str, np.ndarray]:
    both = run.made, run.true
    objects = [
        [
            count_each(pictures, scenes[walk.scene], walk.c2w[run.at])
            for pictures, walk in zip(group, run.walks, strict=True)
        ]
        for group in both
    ]
    return {
        "edges": np.stack([measures.edge_energy(pictures) for pictures in both]),
        "sharpness": np.stack([measures.sharpness(pictures) for pictures in both]),
        "bands": np.stack([measures.column_band(pictures) for pictures in both]),
        "objects": np.array(objects, float),
    }


def _colour(run: Looks) -> np.ndarray:
    return np.stack([
        measures.colour_error(a, b) for a, b in zip(run.made, run.true, strict=True)
    ])  # fmt: skip


def colour_floor(runs: list[Looks]) -> float:
    """Colour error between the true pictures of two walks in one world: what place alone does."""
    found = []
    for run in runs:
        for i, walk in enumerate(run.walks):
            for j in range(i):
                if run.walks[j].scene == walk.scene:
                    found.append(measures.colour_error(run.true[i], run.true[j]).mean())
    return float(np.mean(found)) if found else float("nan")


def furthest(ratios: list[float]) -> float:
    """The ratio furthest from one."""
    return max(ratios, key=lambda ratio: abs(np.log(max(ratio, 1e-6))))
