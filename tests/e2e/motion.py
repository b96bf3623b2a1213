"""Which way a picture moves: horizontal shifts between frames by normalised correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float64]  # F H W, grey, 0..255

LAG = 4  # pixel frames between the two compared: one latent frame
REACH = 20  # largest shift looked for, in pixels


def shift_between(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """How many pixels `after` lies to the right of `before` (both `H W`), to about 0.1 pixel."""
    scores = [_score(before, after, offset) for offset in range(-REACH, REACH + 1)]
    best = int(np.argmax(scores))
    if 0 < best < len(scores) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        bend = left - 2 * middle + right
        fine = 0.5 * (left - right) / bend if bend else 0.0
    else:
        fine = 0.0
    return best - REACH + fine


def median_shift(frames: Frames) -> float:
    """Median shift per latent frame over a recording; positive: the scenery moves to the right."""
    pairs = zip(frames[:-LAG], frames[LAG:], strict=True)
    return float(np.median([shift_between(before, after) for before, after in pairs]))


def mean_change(frames: Frames) -> float:
    """Mean absolute difference per latent frame, in grey levels."""
    return float(np.abs(frames[LAG:] - frames[:-LAG]).mean())


def _score(before: NDArray[np.float64], after: NDArray[np.float64], offset: int) -> float:
    """Correlation of the overlap when `after` is moved back by `offset` pixels."""
    width = before.shape[1]
    one = before[:, max(0, -offset) : width - max(0, offset)]
    two = after[:, max(0, offset) : width - max(0, -offset)]
    one, two = one - one.mean(), two - two.mean()
    size = np.sqrt((one**2).sum() * (two**2).sum())
    return float((one * two).sum() / size) if size > 0 else 0.0
