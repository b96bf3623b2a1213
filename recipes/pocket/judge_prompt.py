"""Do words work: the palette of the prompted world at the start, and after a switch."""

from __future__ import annotations

import numpy as np

from recipes.pocket.judge_palette import PATIENCE, clear_walk, palettes, share
from recipes.pocket.judge_report import Figure, Finding, Goal
from recipes.pocket.judge_subject import Begin, decode_at, walk_on
from recipes.pocket.judge_switch import SINCE, judge_switches
from recipes.pocket.judge_trial import Trial
from recipes.pocket.scenes import caption
from recipes.pocket.walks import Walk

TEXT = (
    "After 2 s the palette is that of the world whose true picture from the same place has the "
    "nearest colours of sky and ground (medians of the top and the bottom sixth), among all "
    "worlds. At the start once with the world's picture, as in the product, and once from words "
    f"alone. Switches go from every world to every other one after {SINCE / 4:g} s of walking. "
    "Whether the layout follows: are the edges more like those of the new world's true picture "
    "or like the old one's."
)
OBEY = Goal(low=90.0)
STARTS = 61_000  # number of the first held-out walk


def judge_prompt(trial: Trial) -> Finding:
    """Figures at the start and after switches, with the confusion of palettes."""
    after = judge_switches(trial)
    return Finding(
        group="prompt", title="Prompts", text=TEXT, figures=judge_starts(trial) + after.figures,
        matrices=[after.matrix], sheets=[after.sheet],
    )  # fmt: skip


def judge_starts(trial: Trial) -> list[Figure]:
    """Pictures with their words, words alone, and words against another world's picture."""
    known = trial.worlds
    walks = [
        clear_walk(trial, known[i % len(known)], STARTS + i, PATIENCE + 1)
        for i in range(trial.plan.starts)
    ]
    own = np.array([walk.scene for walk in walks])
    others = np.array([known[(known.index(w) + 1 + i // len(known)) % len(known)]
                       for i, w in enumerate(own)])  # fmt: skip
    rng = np.random.default_rng(1)
    both = trial.start(walks)
    rows = trial.subject.model.text.rows([caption(trial.scenes[w], rng) for w in others])
    against = Begin(rows, both.picture, both.rel)
    foreign = others != own
    return [
        share("palette at the start, picture and words", _seen(trial, both, walks) == own, OBEY),
        share("palette at the start, words alone", _alone(trial, walks) == own, OBEY),
        share("words of another world win over the picture",
              (_seen(trial, against, walks) == others)[foreign], None),
    ]  # fmt: skip


def _seen(trial: Trial, begin: Begin, walks: list[Walk]) -> np.ndarray:
    """Palettes after 2 s."""
    latents = walk_on(trial.subject, begin, told=trial.told("starts"))
    made = decode_at(trial.subject, latents, [PATIENCE])[:, 0]
    return palettes(trial, made, walks, PATIENCE)


def _alone(trial: Trial, walks: list[Walk]) -> np.ndarray:
    """Palettes after 2 s without a picture: such walks begin in the middle, moving."""
    heard = trial.begin(walks, trial.words(walks), None)
    heard = Begin(heard.rows, None, heard.rel[:, 1:])
    latents = walk_on(trial.subject, heard, told=trial.told("words alone"))
    made = decode_at(trial.subject, latents, [PATIENCE - 1])[:, 0]
    return palettes(trial, made, walks, PATIENCE)
