"""Rotations and rigid poses in float64 numpy: the arithmetic below `core.camera`.

Matrices act on column vectors; quaternions are (w, x, y, z) of unit length. Nothing is checked
here: callers hand in rotations.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)


def turn(rotation: Array, yaw_deg: float, pitch_deg: float) -> Array:
    """Yaw about world y (left factor), pitch about camera x (right factor)."""
    c, s = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    yaw = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    c, s = math.cos(math.radians(pitch_deg)), math.sin(math.radians(pitch_deg))
    pitch = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    return yaw @ rotation @ pitch


def orthonormal(rotation: Array) -> Array:
    """Take out the rounding of one product, so that hours of turning stay a rotation."""
    x = rotation[:, 0] / np.linalg.norm(rotation[:, 0])
    z = np.cross(x, rotation[:, 1])
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def nearest_rotation(matrices: Array) -> Array:
    """Closest orthonormal matrices to `[n, 3, 3]`, in the least-squares sense."""
    left, _, right = np.linalg.svd(matrices)
    return left @ right


def multiply(a: NDArray[Real], b: NDArray[Real]) -> NDArray[Real]:
    """Matrix product of `[..., 4, 4]` arrays in their own precision, summed in index order.

    Written out because a BLAS may fuse or reorder the sums, and differently on each machine.
    """
    total = a[..., :, 0, None] * b[..., None, 0, :]
    for k in range(1, a.shape[-1]):
        total += a[..., :, k, None] * b[..., None, k, :]
    return total.astype(a.dtype, copy=False)


def inverse(c2w: NDArray[Real]) -> NDArray[Real]:
    """Inverse of rigid poses `[..., 4, 4]`, by transposing the rotation."""
    result = np.zeros_like(c2w)
    back = np.swapaxes(c2w[..., :3, :3], -1, -2)
    result[..., :3, :3] = back
    result[..., :3, 3:] = -multiply(back, c2w[..., :3, 3:])
    result[..., 3, 3] = 1
    return result


def quaternion(rotation: Array) -> Array:
    """Unit quaternion (w, x, y, z); the largest component is found first, for stability."""
    m = rotation
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    skew = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    both = (m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2])
    rows = (
        (squares[0], skew[0], skew[1], skew[2]),
        (skew[0], squares[1], both[0], both[1]),
        (skew[1], both[0], squares[2], both[2]),
        (skew[2], both[1], both[2], squares[3]),
    )
    q = np.array(rows[int(np.argmax(squares))])
    return q / np.linalg.norm(q)


def slerp(start: Array, end: Array, part: Array) -> Array:
    """Shortest great arc between unit quaternions `[n, 4]` at `part` `[n, 1]`."""
    dot = (start * end).sum(axis=1, keepdims=True)
    end, dot = np.where(dot < 0, -end, end), np.abs(dot)
    angle = np.arccos(np.clip(dot, 0.0, 1.0))
    small = angle < 1e-8
    sine = np.where(small, 1.0, np.sin(angle))
    first = np.where(small, 1 - part, np.sin((1 - part) * angle) / sine)
    second = np.where(small, part, np.sin(part * angle) / sine)
    q = first * start + second * end
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def matrices(q: Array) -> Array:
    """Rotation matrices `[n, 3, 3]` of unit quaternions `[n, 4]` (w, x, y, z)."""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
