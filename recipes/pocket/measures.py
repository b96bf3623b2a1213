"""Numbers by which pocket walks are judged; pictures are uint8 `[..., F, H, W, 3]`."""

from __future__ import annotations

import numpy as np


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Per-picture PSNR in dB over the last three axes; identical pictures give 99."""
    error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(axis=(-1, -2, -3))
    return np.where(error > 0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), 99.0)


def edge_energy(frames: np.ndarray) -> np.ndarray:
    """Mean absolute horizontal difference per picture: falls with blur and emptying."""
    grey = frames.astype(np.float32).mean(-1)
    return np.abs(np.diff(grey, axis=-1)).mean(axis=(-1, -2))


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
