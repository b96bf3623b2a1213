"""Is one picture right: reconstruction, seams of the autoencoder's blocks, and the next latent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket import measures
from recipes.pocket.judge_report import Chart, Figure, Finding, Goal, Sheet, save_sheet
from recipes.pocket.judge_subject import to_pictures, walk_on
from recipes.pocket.judge_trial import Judged, Trial
from recipes.pocket.walks import STRIDE

TEXT = (
    "The true walks through the autoencoder and back, and each next latent frame predicted from "
    "the true past. Copying repeats the last picture; standing still is perfect for a copy, so "
    "only moving frames count there. Seams: mean change of the error across the borders of 8×8 "
    "blocks, over its change elsewhere; 1 means that no grid can be seen."
)
SHOWN = 6  # walks on the sheet
STRONGER = 4  # times the error is shown


class Errors(NamedTuple):
    """What decoding the walks gave, one entry per walk."""

    rebuilt: np.ndarray  # [n, F] dB
    seams: np.ndarray  # [n]
    following: np.ndarray  # [n, T-1] dB of each predicted latent frame, decoded after the true ones
    steepness: np.ndarray  # [n] of the rebuilt pictures' edges over that of the true ones
    last: list[np.ndarray]  # the last rebuilt picture of each walk


def judge_picture(trial: Trial) -> Finding:
    """Reconstruction and next-latent figures of the held-out walks."""
    judged = trial.held_out
    forced = walk_on(trial.subject, judged.begin, truth=judged.x0, told=trial.told("next latents"))
    errors = _decode_both(trial, judged, forced)
    figures = picture_figures(judged, errors)
    x0_error = float((forced - judged.x0)[:, :, 1:].square().mean())
    figures.append(Figure(name="squared error of the next latent", value=x0_error, digits=4))
    by_latent = errors.rebuilt[:, 1:].reshape(len(forced), -1, STRIDE).mean((0, 2))
    chart = Chart(
        title="Reconstruction and next latent", x_label="latent frame", y_label="dB",
        x=[float(i) for i in range(1, forced.shape[2])],
        curves={"reconstruction": by_latent.tolist(),
                "next latent": errors.following.mean(0).tolist()},
    )  # fmt: skip
    return Finding(
        group="picture", title="Pictures", text=TEXT, figures=figures, charts=[chart],
        sheets=[_sheet(trial, judged, errors)],
    )  # fmt: skip


def picture_figures(judged: Judged, errors: Errors) -> list[Figure]:
    """Figures of the autoencoder and of the next latent frame."""
    moving = np.array([[bool(keys) for keys in walk.keys[1:]] for walk in judged.walks])
    following = float(errors.following[moving].mean())
    copied = float(copy_psnr(judged.frames)[moving].mean())
    rebuilt, seams = errors.rebuilt, errors.seams
    return [
        Figure(name="reconstruction, mean picture", value=float(rebuilt.mean()), unit="dB",
               goal=Goal(low=38.0), note=f"worst walk {rebuilt.mean(1).min():.1f} dB"),
        Figure(name="error across 8-pixel seams / elsewhere", value=float(seams.mean()),
               goal=Goal(high=1.1), note=f"worst walk {seams.max():.2f}"),
        Figure(name="steepness of edges, reconstruction", value=float(errors.steepness.mean())),
        Figure(name="next latent over copying", value=following - copied, unit="dB",
               goal=Goal(low=5.0), note=f"{following:.1f} dB against {copied:.1f} dB"),
        Figure(name="next latent from the true past", value=following, unit="dB"),
        Figure(name="copying the last picture", value=copied, unit="dB"),
    ]  # fmt: skip


@torch.inference_mode()
def _decode_both(trial: Trial, judged: Judged, forced: Tensor) -> Errors:
    """Decode the true latents, and beside each the predicted one in its place."""
    vae, told, count = trial.subject.vae, trial.told("decoding"), len(forced)
    rebuilt, seams, following, steepness, last = [], [], [], [], []
    for n in range(count):
        picture, state = vae.decode_stream(judged.x0[n : n + 1, :, :1], None)
        pictures, guesses = [to_pictures(picture)[0]], []
        for i in range(1, forced.shape[2]):
            guess, _ = vae.decode_stream(forced[n : n + 1, :, i : i + 1], state)
            guesses.append(to_pictures(guess)[0])
            picture, state = vae.decode_stream(judged.x0[n : n + 1, :, i : i + 1], state)
            pictures.append(to_pictures(picture)[0])
        frames, whole = judged.frames[n], np.concatenate(pictures)
        rebuilt.append(measures.psnr(whole, frames))
        seams.append(measures.seam_ratio(whole, frames))
        error = measures.psnr(np.concatenate(guesses), frames[1:])
        following.append(error.reshape(-1, STRIDE).mean(-1))
        steepness.append(measures.sharpness(whole).mean() / measures.sharpness(frames).mean())
        last.append(whole[-1])
        told(n + 1, count)
    return Errors(
        np.stack(rebuilt), np.array(seams), np.stack(following), np.array(steepness), last
    )


def copy_psnr(frames: np.ndarray) -> np.ndarray:
    """PSNR `[n, T-1]` of repeating the last picture before each latent frame."""
    groups = frames[:, 1:].reshape(len(frames), -1, STRIDE, *frames.shape[2:])
    before = frames[:, :-STRIDE:STRIDE]
    return np.stack([
        measures.psnr(old[:, None], new).mean(-1) for old, new in zip(before, groups, strict=True)
    ])  # fmt: skip


def _sheet(trial: Trial, judged: Judged, errors: Errors) -> Sheet:
    """The last pictures of some walks: true, rebuilt and the error."""
    some = range(0, len(errors.last), -(-len(errors.last) // SHOWN))
    true, made = [judged.frames[i, -1] for i in some], [errors.last[i] for i in some]
    gaps = [np.abs(a.astype(int) - b) * STRONGER for a, b in zip(true, made, strict=True)]
    rows = [true, made, [gap.clip(0, 255).astype(np.uint8) for gap in gaps]]
    caption = f"true, rebuilt, {STRONGER} times the error"
    return save_sheet(trial.folder / "picture.png", rows, caption, pairs=3)
