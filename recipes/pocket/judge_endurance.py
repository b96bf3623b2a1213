"""Minutes of walking: does the world fade, fog up, empty or run away."""

from __future__ import annotations

import numpy as np

from recipes.pocket.judge_looks import Looks, Numbers, colour_floor, furthest, numbers_of
from recipes.pocket.judge_report import Chart, Figure, Finding, Goal, Sheet, save_sheet
from recipes.pocket.judge_subject import decode_at, walk_on
from recipes.pocket.judge_trial import Trial

TEXT = (
    "Long held-out walks, looked at every few seconds. Each figure is that of the quarter of the "
    "time that is furthest from the truth. Edges: mean horizontal difference. Colour: distance of "
    "a picture's mean colour from the true one, which is not zero even between two true pictures "
    "of one world. Columns: things that stand against the fog at the horizon, counted."
)
SECOND = 4  # latent frames
DENSE, SPARSE, SHORT = 12, 24, 4  # latent frames between looks: first minute, later, quick runs
MINUTE = 240  # latent frames
EDGES, COLOUR, COLUMNS = Goal(low=0.85, high=1.15), Goal(high=0.05), Goal(low=0.7, high=1.3)
SHOWN_WALKS, SHOWN_LOOKS = 8, 12


def judge_endurance(trial: Trial) -> Finding:
    """Figures for every planned length; the shorter ones use the longer walks too."""
    runs: list[Looks] = []
    figures, sheets = [], []
    for length in sorted(trial.plan.endurance, reverse=True):
        wanted = trial.plan.long_walks if length > MINUTE else trial.plan.minute_walks
        if wanted:
            first = sum(len(run.walks) for run in runs)
            runs.append(look(trial, range(first, first + wanted), length))
            sheets.append(_sheet(trial, runs[-1], length))
            figures = [*endurance_figures(trial, runs, length), *figures]
    charts = endurance_charts(numbers_of(runs, trial.scenes)) if runs else []
    return Finding(
        group="endurance", title="Endurance", text=TEXT, figures=figures, charts=charts,
        sheets=sheets[::-1],
    )  # fmt: skip


def look(trial: Trial, numbers: range, length: int) -> Looks:
    """Walk held-out walks of that length and look at them now and then."""
    walks = [trial.walk(i, length + 1) for i in numbers]
    told = trial.told(f"{length} latent frames")
    latents = walk_on(trial.subject, trial.start(walks), told=told)
    dense = SHORT if length < MINUTE else DENSE
    first, rest = min(length, MINUTE), range(MINUTE + SPARSE, length + 1, SPARSE)
    at = np.array([*range(dense, first + 1, dense), *rest])
    made = decode_at(trial.subject, latents, at.tolist(), told=trial.told("decoding"))
    true = np.stack([trial.true_at(walk, at.tolist()) for walk in walks])
    return Looks(walks, at, made, true)


def endurance_figures(trial: Trial, runs: list[Looks], length: int) -> list[Figure]:
    """Figures of the first `length` latent frames of the walks in `runs`."""
    seen = numbers_of([_until(run, length) for run in runs], trial.scenes)
    edges, sharpness, bands, objects, colour = (
        seen.by_quarter(name, length)
        for name in ("edges", "sharpness", "bands", "objects", "colour")
    )
    made, true = seen.values["objects"].mean(-1)
    floor = colour_floor(runs)
    beside = "" if np.isnan(floor) else f"; two true walks: {floor:.3f}"
    tail = f"{length} latent frames"
    count = sum(len(run.walks) for run in runs)
    return [
        Figure(name=f"edges against the truth, {tail}", value=furthest(edges), goal=EDGES,
               note=f"{_series(edges)}; {count} walks"),
        Figure(name=f"colour error, {tail}", value=max(colour), digits=3, goal=COLOUR,
               note=_series(colour, 3) + beside),
        Figure(name=f"columns per picture against the truth, {tail}", value=furthest(objects),
               goal=COLUMNS, note=f"{_series(objects)}; {made:.2f} against {true:.2f}"),
        Figure(name=f"vertical edges of columns, {tail}", value=furthest(bands),
               note=_series(bands)),
        Figure(name=f"steepness of edges, {tail}", value=furthest(sharpness),
               note=_series(sharpness)),
    ]  # fmt: skip


def endurance_charts(seen: Numbers) -> list[Chart]:
    """Edges, columns and colour over time, of all walks that got that far."""
    times = np.unique(seen.at)
    then = [seen.at == t for t in times]
    curves = {
        "edges": [seen.ratio("edges", part) for part in then],
        "columns": [seen.ratio("objects", part) for part in then],
        "colour error": [float(seen.colour[part].mean()) for part in then],
    }
    return [
        Chart(title=title, x_label="seconds", y_label=label, x=(times / SECOND).tolist(),
              curves={name: curves[name]}, band=band)
        for name, title, label, band in (
            ("edges", "Edges over time", "made / true", (0.85, 1.15)),
            ("columns", "Columns per picture over time", "made / true", (0.7, 1.3)),
            ("colour error", "Colour error over time", "of 0..1", (0.0, 0.05)),
        )
    ]  # fmt: skip


def _until(run: Looks, length: int) -> Looks:
    keep = run.at <= length
    return Looks(run.walks, run.at[keep], run.made[:, keep], run.true[:, keep])


def _series(values: list[float], digits: int = 2) -> str:
    return "by quarter " + ", ".join(f"{value:.{digits}f}" for value in values)


def _sheet(trial: Trial, run: Looks, length: int) -> Sheet:
    picks = np.unique(np.linspace(0, len(run.at) - 1, SHOWN_LOOKS).round().astype(int))
    rows = []
    for n in range(min(SHOWN_WALKS, len(run.walks))):
        rows += [list(pictures[n, picks]) for pictures in (run.true, run.made)]
    times = ", ".join(f"{run.at[k] / SECOND:.0f}" for k in picks)
    caption = f"after {times} s: true walk above the model's own"
    return save_sheet(trial.folder / f"endurance-{length}.png", rows, caption, pairs=2)
