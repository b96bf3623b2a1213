"""Is what was seen still there: turning away and back, and a full turn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_objects import pitch_of
from recipes.pocket.judge_report import Chart, Figure, Finding, Goal, Sheet, save_sheet
from recipes.pocket.judge_subject import decode, walk_on
from recipes.pocket.judge_trial import SPLIT, Trial, scripted
from recipes.pocket.walks import RIG, STRIDE, make_walk, view_state, walk_seed
from recipes.pocket.world_model import WINDOW
from worldline.core.camera import CameraState

WITHIN = (WINDOW - 1) // 2  # latent frames away, and as many back: the first one is still seen
QUARTER = round(90 / RIG.yaw_deg)
ROUND = round(360 / RIG.yaw_deg)
EVERY = 3  # latent frames between two looks during the full turn
KEPT = 22.0  # dB
TOLERANCE = 0.05  # of 0..1, as for the colours of a long walk
SHOWN = 6
FREE_PLACES = 50_000  # number of the first held-out walk that only lends its first pose
TEXT = (
    f"The rig turns {RIG.yaw_deg:g}° per latent frame and the window holds {WINDOW} of them, so "
    f"{RIG.yaw_deg * WITHIN:g}° is the largest turn away and back during which the first picture "
    "stays within the window; after 90° and back it is long forgotten, and what is there again "
    "is knowledge of the world. Both compare the last picture with the one before the turn. A "
    "full turn compares the colours of sky and ground (medians of the top and the bottom sixth) "
    "and the mean brightness with the true ones, over the second half of the turn."
)

Place = tuple[int, CameraState]  # a world and where one stands in it


def judge_memory(trial: Trial) -> Finding:
    """Figures of both turns away and back and of the full turn."""
    places = memory_places(trial)
    near, near_sheet = _away_and_back(trial, places, WITHIN, "within the window")
    far, far_sheet = _away_and_back(trial, places, QUARTER, "outside the window")
    found, chart, sheet = _full_turn(trial, places[: max(2, len(places) // 2)])
    return Finding(
        group="memory", title="Memory", text=TEXT, figures=[near, far, *found], charts=[chart],
        sheets=[near_sheet, far_sheet, sheet],
    )  # fmt: skip


def memory_places(trial: Trial) -> list[Place]:
    """Start views and free places of held-out walks by turns, as many as planned."""
    views = [(w, view_state(v)) for w in trial.worlds for v in trial.scenes[w].starts]
    free = _free_places(trial)
    return [place for view in views for place in (view, next(free))][: trial.plan.places]


def _free_places(trial: Trial) -> Iterator[Place]:
    number = FREE_PLACES
    while True:
        number += 1
        world = trial.worlds[number % len(trial.worlds)]
        walk = make_walk(world, walk_seed(SPLIT, number), 1)
        if not walk.from_view:
            yield world, CameraState(walk.c2w[0], pitch_of(walk.c2w[0]))


def _away_and_back(
    trial: Trial, places: list[Place], steps: int, name: str
) -> tuple[Figure, Sheet]:
    """Turn by `steps` latent frames and back, to the left and to the right by turns."""
    keys = (("j", "l"), ("l", "j"))
    walks = [
        scripted(w, state, [*[keys[i % 2][0]] * steps, *[keys[i % 2][1]] * steps])
        for i, (w, state) in enumerate(places)
    ]
    degrees = round(RIG.yaw_deg * steps)
    told = trial.told(f"{degrees}° away and back")
    made = decode(trial.subject, walk_on(trial.subject, trial.start(walks), told=told))
    true = np.stack([trial.true_at(walk, [0, steps]) for walk in walks])
    figure = again_figure(made[:, -1], true[:, 0], f"{degrees}° away and back, {name}")
    looks = made[:, [0, STRIDE * steps, -1]]
    rows = [[*a, *b] for a, b in zip(true, looks, strict=True)][:SHOWN]
    rows = [a + b for a, b in zip(rows[::2], rows[1::2], strict=False)] or rows
    caption = f"true before and at {degrees}°; made before, at {degrees}° and back again"
    return figure, save_sheet(trial.folder / f"memory-{degrees}.png", rows, caption)


def again_figure(back: np.ndarray, before: np.ndarray, name: str) -> Figure:
    """How well pictures `[n, H, W, 3]` repeat those from before the turn."""
    error = measures.psnr(back, before)
    kept = f"{100 * float((error >= KEPT).mean()):.0f} % of {len(error)} places"
    goal = Goal(low=KEPT)
    return Figure(name=name, value=float(error.mean()), unit="dB", goal=goal, note=kept)


def _full_turn(trial: Trial, places: list[Place]) -> tuple[list[Figure], Chart, Sheet]:
    """Once around; how far sky, ground and brightness stray from the truth."""
    walks = [scripted(w, state, ["l"] * ROUND) for w, state in places]
    told = trial.told("full turn")
    frames = decode(trial.subject, walk_on(trial.subject, trial.start(walks), told=told))
    looks = list(range(EVERY, ROUND + 1, EVERY))
    made = frames[:, [STRIDE * i for i in looks]]
    true = np.stack([trial.true_at(walk, looks) for walk in walks])
    figures, chart = turn_figures(made, true, [RIG.yaw_deg * i for i in looks])
    rows = []
    for n in range(min(SHOWN // 2, len(walks))):
        rows += [list(pictures[n, ::EVERY]) for pictures in (true, made)]
    caption = f"a full turn, every {RIG.yaw_deg * EVERY**2:g}°: true above made"
    return figures, chart, save_sheet(trial.folder / "memory-turn.png", rows, caption, pairs=2)


def turn_figures(
    made: np.ndarray, true: np.ndarray, degrees: list[float]
) -> tuple[list[Figure], Chart]:
    """Figures of pictures `[n, looks, H, W, 3]` on the way around."""
    bands = np.abs(measures.bands(made) - measures.bands(true)).mean(-1)  # n looks 2
    light = np.abs(measures.light(made) - measures.light(true))
    strays = {"sky": bands[..., 0], "ground": bands[..., 1], "light": light}
    late = len(degrees) // 2
    figures = [
        Figure(name=f"full turn keeps the {name}", value=float(stray[:, late:].mean()), digits=3,
               goal=Goal(high=TOLERANCE),
               note=f"worst place {stray[:, late:].mean(1).max():.3f}")
        for name, stray in strays.items()
    ]  # fmt: skip
    home = float(measures.psnr(made[:, -1], true[:, -1]).mean())
    figures.append(Figure(name="after a full turn, the true picture", value=home, unit="dB"))
    chart = Chart(
        title="Distance from the true colours during a full turn", x_label="degrees",
        y_label="of 0..1", x=degrees,
        curves={name: stray.mean(0).tolist() for name, stray in strays.items()},
        band=(0.0, TOLERANCE),
    )  # fmt: skip
    return figures, chart
