"""Where the camera of a walk was at each latent frame, whatever led it there.

Motions move the live camera, which the engine tells. Recorded poses move the picture and not the
live camera: they are laid end to end here, a translation of 1 being full speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import interpolate_poses
from worldline.core.chunk import PICTURES
from worldline.core.motion import Pose, Rig
from worldline.core.rotation import inverse, multiply, orthonormal
from worldline.core.trajectory import as_poses
from worldline.core.walk import Stepped, relative_and_keys

Array = NDArray[np.float64]


class Way:
    """The camera, chunk after chunk; starts at the identity."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._base = np.eye(4)  # from the live camera's world to the walk's
        self._last: Array | None = None  # 4 4, at the last latent frame

    def pictures(self, step: Stepped, told: Sequence[Pose]) -> Array:
        """The camera at each picture of the next chunk, `[F, 4, 4]`.

        `told` is what the engine says of the live camera, per latent frame. The last picture of a
        latent frame is at its pose, those before are between it and the one before.
        """
        poses = self._chunk(step, told)  # T 4 4
        first = self._last is None
        before = poses[:1] if self._last is None else self._last[None]
        path = np.concatenate([before, poses[1:] if first else poses])
        self._last = poses[-1]
        count = PICTURES * (len(path) - 1) + 1
        between = interpolate_poses(path, count)
        return between if first else between[1:]

    def _chunk(self, step: Stepped, told: Sequence[Pose]) -> Array:
        live = as_poses([pose.c2w for pose in told])
        if step.poses is None:
            return multiply(self._base[None], live)
        relative = relative_and_keys(step.poses)[0].astype(np.float64)
        relative[:, :3, 3] *= self._rig.move
        at, poses = np.eye(4) if self._last is None else self._last, list[Array]()
        for one in relative:
            at = multiply(at, one)
            at[:3, :3] = orthonormal(at[:3, :3])
            poses.append(at)
        self._base = multiply(at, inverse(live[-1:])[0])
        return np.stack(poses)
