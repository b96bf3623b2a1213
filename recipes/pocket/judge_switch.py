"""Another prompt while walking: do the colours follow, and does the layout."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from torch import Tensor

from recipes.pocket import measures
from recipes.pocket.judge_palette import PATIENCE, clear_walk, palettes, share
from recipes.pocket.judge_report import Figure, Goal, Matrix, Sheet, save_sheet
from recipes.pocket.judge_subject import decode, decode_at, walk_on
from recipes.pocket.judge_trial import Trial
from recipes.pocket.scenes import caption
from recipes.pocket.walks import STRIDE, Walk

SINCE = 5  # the latent frame from which the new prompt is in force
LAST = SINCE + PATIENCE
OBEY = Goal(low=80.0)
SWITCHES = 60_000  # number of the first held-out walk
SHOWN = 12
LOOKS = 0, SINCE - 1, SINCE, SINCE + 1, SINCE + 2, SINCE + 4, LAST


class Switch(NamedTuple):
    """A walk in world `old` during which the prompt asks for world `new`."""

    old: int
    new: int
    walk: Walk
    words: str


class Switched(NamedTuple):
    """What all switches gave."""

    figures: list[Figure]
    matrix: Matrix
    sheet: Sheet


def plan_switches(trial: Trial) -> list[Switch]:
    """Every pair of worlds `plan.pairs` times; with 0, each world once to the next.

    The first half uses the new world's own prompts, the second other wordings.
    """
    known, rng = trial.worlds, np.random.default_rng(2)
    pairs = list(itertools.permutations(known, 2)) * trial.plan.pairs
    pairs = pairs or list(zip(known, [*known[1:], known[0]], strict=True))
    found = []
    for i, (old, new) in enumerate(pairs):
        scene = trial.scenes[new]
        own = scene.starts[i % len(scene.starts)].prompt
        words = own if i < len(pairs) / 2 else caption(scene, rng)
        found.append(Switch(old, new, clear_walk(trial, old, SWITCHES + i, LAST + 1), words))
    return found


def judge_switches(trial: Trial) -> Switched:
    """Walk, switch, and look 2 s later."""
    switches, subject = plan_switches(trial), trial.subject
    walks = [switch.walk for switch in switches]
    later = {SINCE: subject.model.text.rows([switch.words for switch in switches])}
    latents = walk_on(subject, trial.start(walks), later=later, told=trial.told("switches"))
    made = decode_at(subject, latents, [LAST])[:, 0]
    seen = palettes(trial, made, walks, LAST)
    figures = switch_figures(trial, switches, made, seen)
    return Switched(figures, _confusion(trial, switches, seen), _sheet(trial, switches, latents))


def switch_figures(
    trial: Trial, switches: list[Switch], made: np.ndarray, seen: np.ndarray
) -> list[Figure]:
    """Shares of switches obeyed; `made` `[n, H, W, 3]` was seen as the worlds `seen`."""
    old, new = (np.array([getattr(s, name) for s in switches]) for name in ("old", "new"))
    layouts = np.array([scene.layout for scene in trial.scenes])
    same = layouts[old] == layouts[new]
    before, after = (
        np.concatenate([trial.true_at(s.walk, [LAST], getattr(s, name)) for s in switches])
        for name in ("old", "new")
    )
    likeness = (measures.layout_likeness(made, true) for true in (after, before))
    follows = np.greater(*likeness)
    obeyed = seen == new
    return [
        share("palette after a switch", obeyed, OBEY),
        share("palette after a switch, same layout", obeyed[same], None),
        share("palette after a switch, other layout", obeyed[~same], None),
        share("the old palette stays", seen == old, None),
        share("the layout follows, where it differs", follows[~same], None),
    ]


def _confusion(trial: Trial, switches: list[Switch], seen: np.ndarray) -> Matrix:
    names = [scene.name for scene in trial.scenes]
    new = np.array([switch.new for switch in switches])
    counts = [[int(((new == i) & (seen == j)).sum()) for j in range(len(names))]
              for i in trial.worlds]  # fmt: skip
    return Matrix(
        title="palette asked for (rows) and seen 2 s later (columns)",
        rows=[names[i] for i in trial.worlds], columns=names, counts=counts,
    )  # fmt: skip


def _sheet(trial: Trial, switches: list[Switch], latents: Tensor) -> Sheet:
    some = list(range(0, len(switches), -(-len(switches) // SHOWN)))
    film = decode(trial.subject, latents[some])[:, [STRIDE * i for i in LOOKS]]
    rows = [
        [*frames, trial.true_at(switches[i].walk, [LAST], switches[i].new)[0]]
        for frames, i in zip(film, some, strict=True)
    ]
    text = (
        f"latent frames {', '.join(map(str, LOOKS))}; another world is asked for at {SINCE}; the "
        "last column is its true picture"
    )
    return save_sheet(trial.folder / "prompt.png", rows, text)
