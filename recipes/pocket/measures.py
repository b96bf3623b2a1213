"""Numbers by which pocket walks are judged; pictures are uint8 `[..., F, H, W, 3]`.

Each says what it reacts to, and the tests feed each with true renders and with pictures broken on
purpose (fogged, emptied, shifted in colour, seams drawn). Objects are counted in `objects`.
"""

from __future__ import annotations

import numpy as np

SEAM = 8  # pixels between the borders of the autoencoder's blocks
BAND = 6  # the top and the bottom sixth of a picture: sky and ground


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Per-picture PSNR in dB over the last three axes; identical pictures give 99."""
    error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(axis=(-1, -2, -3))
    return np.where(error > 0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), 99.0)


def edge_energy(frames: np.ndarray) -> np.ndarray:
    """Mean absolute horizontal difference per picture: falls with fog and emptying.

    NOTE a step spread over some pixels has the same sum, so blur costs little: see `sharpness`.
    """
    return _steps(frames).mean(axis=(-1, -2))


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Mean square over mean absolute horizontal difference: how steep edges are, not how many."""
    steps = _steps(frames)
    return np.square(steps).mean(axis=(-1, -2)) / np.maximum(steps.mean(axis=(-1, -2)), 1e-6)


def _steps(frames: np.ndarray) -> np.ndarray:
    grey = frames.astype(np.float32).mean(-1)
    return np.abs(np.diff(grey, axis=-1))


def column_band(frames: np.ndarray) -> np.ndarray:
    """Edge energy of vertical edges in the middle band, where columns stand, per picture."""
    height = frames.shape[-3]
    grey = frames[..., int(0.3 * height) : int(0.7 * height), :, :].astype(np.float32).mean(-1)
    return np.abs(np.diff(grey.mean(axis=-2), axis=-1)).mean(axis=-1)


def colour_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of mean colours per picture, in 0..1."""
    mean_a = a.astype(np.float32).mean(axis=(-2, -3))
    mean_b = b.astype(np.float32).mean(axis=(-2, -3))
    return np.abs(mean_a - mean_b).mean(-1) / 255.0


def light(frames: np.ndarray) -> np.ndarray:
    """Mean brightness per picture, in 0..1."""
    return frames.astype(np.float32).mean(axis=(-1, -2, -3)) / 255.0


def seam_ratio(made: np.ndarray, true: np.ndarray) -> float:
    """Steps of the error across 8-pixel block borders over its steps elsewhere; 1.0 is none."""
    error = made.astype(np.float32) - true.astype(np.float32)
    across, elsewhere = [], []
    for axis in (-2, -3):
        steps = np.moveaxis(np.abs(np.diff(error, axis=axis)), axis, -1)
        border = np.arange(1, steps.shape[-1] + 1) % SEAM == 0
        across.append(steps[..., border].ravel())
        elsewhere.append(steps[..., ~border].ravel())
    inner = float(np.concatenate(elsewhere).mean())
    return float(np.concatenate(across).mean()) / max(inner, 1e-6)


def bands(frames: np.ndarray) -> np.ndarray:
    """Colours `[..., 2, 3]` of sky and ground in 0..1: medians, so objects count little."""
    height = frames.shape[-3]
    parts = frames[..., : height // BAND, :, :], frames[..., -(height // BAND) :, :, :]
    flat = [part.reshape(*part.shape[:-3], -1, 3) for part in parts]
    return np.stack([np.median(part, axis=-2) for part in flat], axis=-2) / 255.0


def nearest_palette(made: np.ndarray, worlds: np.ndarray) -> np.ndarray:
    """Which of `worlds` `[N, ..., H, W, 3]` (one walk in each) has the sky and ground of `made`.

    Geometry plays no part: only the two colours of `bands` are compared.
    """
    return np.abs(bands(worlds) - bands(made)).mean(axis=(-1, -2)).argmin(axis=0)


def layout_likeness(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Correlation of where edges are, per picture, blind to their colours and strengths."""
    a, b = (_outlines(frames) for frames in (made, true))
    return (a * b).mean(axis=(-1, -2))


def _outlines(frames: np.ndarray) -> np.ndarray:
    """Smoothed edge strength, its root, with mean 0 and variance 1 per picture."""
    grey = frames.astype(np.float32).mean(-1)
    dx, dy = np.diff(grey, axis=-1)[..., 1:, :], np.diff(grey, axis=-2)[..., :, 1:]
    edges = np.sqrt(np.abs(dx) + np.abs(dy))
    for axis in (-1, -2):  # two pictures of one place may differ by a pixel or two
        edges = np.mean([np.roll(edges, shift, axis) for shift in (-2, -1, 0, 1, 2)], axis=0)
    edges = edges - edges.mean(axis=(-1, -2), keepdims=True)
    return edges / np.maximum(edges.std(axis=(-1, -2), keepdims=True), 1e-6)
