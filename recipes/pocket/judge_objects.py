"""Counting what stands in a picture: columns, trees, gates and lanterns, as connected shapes.

Every object of the pocket worlds reaches up to the eye, so each meets the horizon; just below the
horizon the ground has faded into the fog and shows one colour. What differs clearly from that
colour there, in runs along the row, is an object, or several that overlap. "Clearly" is a share of
a world's own contrast, which leaves out what stands more than about 16 m away. The same count is
taken of true renders, and only the ratio is judged.
"""

from __future__ import annotations

import numpy as np

from recipes.pocket.scenes import EYE, Scene
from worldline.core.camera import DEFAULT_INTRINSICS, scale_intrinsics

ROWS = 4  # pixel rows below the horizon that are looked at
CLEAR = 0.3  # of the world's contrast: from here on a pixel is an object's
FAINTEST = 0.04  # and at least this, in 0..1: below it lies the noise of a picture
BACKGROUND = 0.12  # distance from the fog within which pixels serve to estimate it
SEEN = 8  # pixels needed for that estimate
NARROWEST = 2  # pixels of an object; also the widest gap that is closed
REACH = 16  # rows by which the horizon may be off, since a walk's own pitch can drift
DRIFT_COST = 0.03  # per row: the expected horizon wins unless another is clearly better


def pitch_of(c2w: np.ndarray) -> float:
    """Degrees by which the camera of a pose `[4, 4]` looks up."""
    return float(np.degrees(np.arcsin(np.clip(-c2w[1, 2], -1, 1))))


def horizon_row(pitch_deg: float, height: int, width: int) -> int:
    """The picture row of the horizon."""
    k = scale_intrinsics(DEFAULT_INTRINSICS, width, height)
    return round(k.cy + k.fy * float(np.tan(np.radians(pitch_deg))))


def contrast(scene: Scene) -> float:
    """How far a world's objects stand out from its fog at eye height, in 0..1, on average."""
    fog, found = np.array(scene.horizon), []
    shade = scene.ambient + 0.25 * (1 - scene.ambient)  # an object's typical side
    for cell in scene.cells:
        prims = [p for p in cell if p.bottom < EYE - 0.05 < p.top]
        found.append(max(np.abs(np.array(p.colour) * shade - fog).max() for p in prims))
    return float(np.mean(found))


def count_objects(picture: np.ndarray, scene: Scene, pitch_deg: float) -> int:
    """Objects in one picture uint8 `[H, W, 3]` of `scene`, the camera tilted up by `pitch_deg`."""
    rows = picture.astype(np.float32) / 255.0  # H W 3
    fog = np.asarray(scene.horizon, np.float32)
    row = _find_horizon(rows, fog, pitch_deg)
    profile = rows[row : row + ROWS].mean(axis=0)  # W 3
    near = np.abs(profile - fog).max(-1) < BACKGROUND
    if near.sum() >= SEEN:
        fog = np.median(profile[near], axis=0)  # the picture's own fog, if its colours drifted
    clear = max(FAINTEST, CLEAR * contrast(scene))
    return _runs(np.abs(profile - fog).max(-1) > clear)


def count_each(pictures: np.ndarray, scene: Scene, poses: np.ndarray) -> np.ndarray:
    """Objects in each of `[F, H, W, 3]` pictures taken from poses `[F, 4, 4]`."""
    return np.array([
        count_objects(p, scene, pitch_of(c)) for p, c in zip(pictures, poses, strict=True)
    ])  # fmt: skip


def _find_horizon(rows: np.ndarray, fog: np.ndarray, pitch_deg: float) -> int:
    """First row of the band that shows most background, at or near the expected one."""
    expected = horizon_row(pitch_deg, *rows.shape[:2])
    low, high = max(0, expected - REACH), min(len(rows) - ROWS, expected + REACH)
    clear = (np.abs(rows[low : high + ROWS] - fog).max(-1) < BACKGROUND).mean(-1)
    shares = np.convolve(clear, np.ones(ROWS) / ROWS, mode="valid")
    at = np.arange(low, low + len(shares))
    return int(at[(shares - DRIFT_COST * np.abs(at - expected)).argmax()])


def _runs(mask: np.ndarray) -> int:
    """Runs of True at least `NARROWEST` long, gaps of up to as much closed."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if len(starts) == 0:
        return 0
    first = np.flatnonzero(np.append(True, starts[1:] - ends[:-1] > NARROWEST))
    widths = np.append(ends[first[1:] - 1], ends[-1]) - starts[first]
    return int((widths >= NARROWEST).sum())
