"""Walking on its own for some seconds from a picture: the first second, then what fades."""

from __future__ import annotations

import numpy as np

from recipes.pocket import measures
from recipes.pocket.judge_report import Chart, Figure, Finding, Goal, save_sheet
from recipes.pocket.judge_subject import decode, walk_on
from recipes.pocket.judge_trial import Trial
from recipes.pocket.walks import STRIDE

TEXT = (
    "Held-out walks from their start picture, each frame built on the model's own. PSNR against "
    "the true walk says something for about a second; later a sharp picture of a place a step "
    "aside scores worse than fog, so edges and colours are compared with those of the true walk."
)
STAGES = {"first second": (1, 5), "2nd and 3rd second": (5, 13), "later": (13, None)}
MEASURES = {
    "edges": measures.edge_energy,
    "columns": measures.column_band,
    "steepness of edges": measures.sharpness,
}
SHOWN_WALKS = 12
SHOWN_LATENTS = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24)


def judge_walk(trial: Trial) -> Finding:
    """Free-running figures of the held-out walks, and their sheet."""
    judged, subject = trial.held_out, trial.subject
    latents = walk_on(subject, judged.begin, told=trial.told("walking freely"))
    free = decode(subject, latents, told=trial.told("decoding"))
    figures, chart = walk_figures(free, judged.frames)
    columns = [STRIDE * i for i in SHOWN_LATENTS if STRIDE * i < free.shape[1]]
    pairs = zip(judged.frames[:SHOWN_WALKS], free[:SHOWN_WALKS], strict=True)
    rows = [list(frames[columns]) for pair in pairs for frames in pair]
    shown = ", ".join(str(column // STRIDE) for column in columns)
    caption = f"each walk: true above made, at latent frames {shown}"
    sheet = save_sheet(trial.folder / "walk.png", rows, caption, pairs=2)
    return Finding(
        group="walk", title="The first seconds", text=TEXT, figures=figures, charts=[chart],
        sheets=[sheet],
    )  # fmt: skip


def walk_figures(free: np.ndarray, frames: np.ndarray) -> tuple[list[Figure], Chart]:
    """Figures of pictures `[n, F, H, W, 3]` against the true ones."""
    pairs = list(zip(free, frames, strict=True))
    by_picture = np.stack([measures.psnr(a, b) for a, b in pairs])  # n F
    colour = np.stack([measures.colour_error(a[-1:], b[-1:]) for a, b in pairs])
    first = by_picture[:, 1 : 1 + 4 * STRIDE].mean(1)
    figures = [
        Figure(name="first second, free running", value=float(first.mean()), unit="dB",
               goal=Goal(low=25.0), note=f"worst walk {first.min():.1f} dB"),
        Figure(name="colour error at the end", value=float(colour.mean()), digits=3),
    ]  # fmt: skip
    for name, measure in MEASURES.items():
        strength = np.stack([[measure(clip) for clip in pair] for pair in pairs])  # n 2 F
        for stage, part in STAGES.items():
            window = strength[..., _frames(part, strength.shape[-1])]
            if window.size:
                value = float(window[:, 0].mean() / window[:, 1].mean())
                figures.append(Figure(name=f"{name} against the truth, {stage}", value=value))
    latents = range((free.shape[1] - 1) // STRIDE + 1)
    chart = Chart(
        title="PSNR against the true walk", x_label="latent frame", y_label="dB",
        x=[float(i) for i in latents],
        curves={"free running": [float(by_picture[:, STRIDE * i].mean()) for i in latents]},
    )  # fmt: skip
    return figures, chart


def _frames(latents: tuple[int, int | None], count: int) -> slice:
    """Pixel frames of the latent frames `low` to `high`, without `high`."""
    low, high = latents
    return slice(1 + STRIDE * (low - 1), count if high is None else 1 + STRIDE * (high - 1))
