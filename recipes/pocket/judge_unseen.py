"""Worlds that were never trained on, reported without a target: what a visitor's picture may get.

They are built here from the pocket worlds' parts: every layout in colours it never had, and one
world whose cells come from all layouts. Worlds that the weights' word list does not know count as
unseen too. No words are given: there are none for these places.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_looks import Looks, numbers_of
from recipes.pocket.judge_report import Figure, Finding, save_sheet
from recipes.pocket.judge_subject import decode, walk_on
from recipes.pocket.judge_trial import SPLIT, Judged, Trial
from recipes.pocket.layouts import Colour
from recipes.pocket.scenes import Scene, clearance
from recipes.pocket.walks import KEEP_AWAY, METRES, STRIDE, Walk, make_walk, walk_seed

TEXT = (
    "The four layouts with their colour channels swapped, and a world with a column, a tree, a "
    "lantern and a gate, none of them in the training. From a picture, without words."
)
UNSEEN = 62_000  # number of the first held-out walk
EARLY = slice(1, 1 + 4 * STRIDE)  # pixel frames of the first second
LATER = 8  # latent frame from which the later figures count
EVERY = 2  # latent frames between looks
ORDERS = (2, 0, 1), (0, 2, 1), (2, 0, 1), (1, 2, 0)  # of red, green and blue, by layout


class Foreign(NamedTuple):
    """A world never seen, and the pocket world whose walks are used in it."""

    scene: Scene
    base: int


def recoloured(scene: Scene, order: tuple[int, int, int], name: str) -> Scene:
    """The same world with its colour channels in another order."""

    def swap(colour: Colour) -> Colour:
        return colour[order[0]], colour[order[1]], colour[order[2]]

    cells = tuple(tuple(p._replace(colour=swap(p.colour)) for p in cell) for cell in scene.cells)
    return scene._replace(
        name=name, cells=cells, horizon=swap(scene.horizon), zenith=swap(scene.zenith),
        sun=swap(scene.sun), ground_a=swap(scene.ground_a), ground_b=swap(scene.ground_b),
        mountain=swap(scene.mountain),
    )  # fmt: skip


def foreign_worlds(trial: Trial) -> list[Foreign]:
    """The worlds built here, then those of the recipe that the weights do not know."""
    by_layout = {scene.layout: i for i, scene in reversed(list(enumerate(trial.scenes)))}
    bases = sorted(by_layout.values())
    found = [
        Foreign(recoloured(trial.scenes[i], order, f"{trial.scenes[i].name}, other colours"), i)
        for i, order in zip(bases, ORDERS, strict=True)
    ]
    cells = tuple(trial.scenes[base].cells[k] for k, base in enumerate(bases))
    mixed = trial.scenes[bases[0]]._replace(name="all layouts mixed", cells=cells)
    found.append(Foreign(mixed, bases[0]))
    return found + [Foreign(s, i) for i, s in enumerate(trial.scenes) if i not in trial.worlds]


def judge_unseen(trial: Trial) -> Finding:
    """Figures and a sheet of walks in worlds never seen."""
    worlds = foreign_worlds(trial)
    walks = [
        _walk(worlds[i], i, number, trial.plan.unseen_latents)
        for i in range(len(worlds))
        for number in range(trial.plan.unseen)
    ]
    judged = trial.with_truth(walks, [world.scene for world in worlds])
    latents = walk_on(trial.subject, judged.begin, told=trial.told("worlds never seen"))
    free = decode(trial.subject, latents, told=trial.told("decoding"))
    columns = [STRIDE * i for i in range(0, trial.plan.unseen_latents, 2)][:13]
    some = range(0, len(walks), max(1, trial.plan.unseen))
    rows = [[f[i, c] for c in columns] for i in some for f in (judged.frames, free)]
    shown = ", ".join(str(c // STRIDE) for c in columns)
    sheet = save_sheet(
        trial.folder / "unseen.png", rows, f"true above made, at latent frames {shown}", pairs=2
    )
    figures = unseen_figures(judged, free, tuple(world.scene for world in worlds))
    return Finding(
        group="unseen", title="Worlds never seen", text=TEXT, figures=figures, sheets=[sheet]
    )


def unseen_figures(judged: Judged, free: np.ndarray, worlds: tuple[Scene, ...]) -> list[Figure]:
    """Figures over all walks, and the first second of each world."""
    error = np.stack([measures.psnr(a, b) for a, b in zip(free, judged.frames, strict=True)])
    first = error[:, EARLY].mean(1)
    length = free.shape[1] // STRIDE
    at = np.arange(min(LATER, length), length + 1, EVERY)
    looks = Looks(judged.walks, at, free[:, STRIDE * at], judged.frames[:, STRIDE * at])
    seen = numbers_of([looks], worlds)
    every = np.ones(len(seen.at), bool)
    which = np.array([walk.scene for walk in judged.walks])
    return [
        Figure(name="first second, free running", value=float(first.mean()), unit="dB"),
        *(Figure(name=f"first second: {world.name}", value=float(first[which == i].mean()),
                 unit="dB") for i, world in enumerate(worlds)),
        Figure(name="edges against the truth after 2 s", value=seen.ratio("edges", every)),
        Figure(name="steepness of edges after 2 s", value=seen.ratio("sharpness", every)),
        Figure(name="columns per picture after 2 s", value=seen.ratio("objects", every)),
        Figure(name="colour error after 2 s", value=float(seen.colour.mean()), digits=3),
    ]  # fmt: skip


def _walk(world: Foreign, index: int, number: int, latents: int) -> Walk:
    """A walk of the base world that keeps its distance in this one; its scene is `index`."""
    for attempt in itertools.count():
        seed = walk_seed(SPLIT, UNSEEN + 1000 * number + attempt)
        walk = make_walk(world.base, seed, latents)
        places = walk.c2w[:, [0, 2], 3] * METRES
        if all(clearance(world.scene, x, z) > 0.7 * KEEP_AWAY for x, z in places):
            return walk._replace(scene=index, after=index)
    raise AssertionError("counting has no end")
