"""Does the camera obey: one command held from a picture, and which true render is the nearest."""

from __future__ import annotations

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_report import Figure, Finding, Goal, Matrix, save_sheet
from recipes.pocket.judge_subject import decode, walk_on
from recipes.pocket.judge_trial import Trial, command_walk
from recipes.pocket.walks import STRIDE

TEXT = (
    "From every start view each of eight commands is held for 1.25 s. The last latent frame is "
    "compared with the true renders of all eight from the same view; the nearest by PSNR has to "
    "be the one that was commanded."
)
COMMANDS = {
    "w": "forward", "s": "back", "a": "left", "d": "right", "j": "turn left", "l": "turn right",
    "i": "look up", "": "none",
}  # fmt: skip
LATENTS = 6  # the picture and 1.25 s


def judge_camera(trial: Trial) -> Finding:
    """Share of commands told apart, their margins and the confusion matrix."""
    places = [(w, v) for w in trial.worlds for v in range(len(trial.scenes[w].starts))]
    places = places[: trial.plan.views]
    walks = [command_walk(w, v, key, LATENTS) for w, v in places for key in COMMANDS]
    latents = walk_on(trial.subject, trial.start(walks), told=trial.told("commands"))
    free = decode(trial.subject, latents, told=trial.told("decoding"))[:, -STRIDE:]
    ends = np.stack([trial.true_end(walk) for walk in walks])
    made, true = (x.reshape(len(places), len(COMMANDS), *x.shape[1:]) for x in (free, ends))
    figures, matrix = camera_figures(made, true)
    middle, names = len(places) // 2, list(COMMANDS.values())
    rows = [list(frames[middle, :, -1]) for frames in (true, made)]
    sheet = save_sheet(
        trial.folder / "camera.png", rows, "true above made: " + ", ".join(names), pairs=2
    )
    return Finding(
        group="camera", title="Camera", text=TEXT, figures=figures, matrices=[matrix],
        sheets=[sheet],
    )  # fmt: skip


def camera_figures(made: np.ndarray, true: np.ndarray) -> tuple[list[Figure], Matrix]:
    """Figures of clips `[places, commands, F, H, W, 3]` in the order of COMMANDS."""
    nearness = np.stack([nearness_of(a, b) for a, b in zip(made, true, strict=True)])
    size, names = len(COMMANDS), list(COMMANDS.values())
    taken = nearness.argmax(-1)  # places made
    right = taken == np.arange(size)
    figures = [
        Figure(name="commands told apart after 1.25 s", value=100 * float(right.mean()), unit="%",
               digits=1, goal=Goal(low=95.0), note=f"{int(right.sum())} of {right.size}"),
    ]  # fmt: skip
    for i, name in enumerate(names):
        others = np.delete(nearness[:, i], i, axis=-1).max(-1)
        value = float((nearness[:, i, i] - others).mean())
        figures.append(Figure(name=f"margin of {name}", value=value, unit="dB"))
    counts = [[int((taken[:, i] == j).sum()) for j in range(size)] for i in range(size)]
    title = "commanded (rows), seen (columns)"
    return figures, Matrix(title=title, rows=names, columns=names, counts=counts)


def nearness_of(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean PSNR `[m, n]` between clips `[m, F, H, W, 3]` and true ones `[n, F, H, W, 3]`."""
    return np.stack([[measures.psnr(a, b).mean() for b in true] for a in made])
