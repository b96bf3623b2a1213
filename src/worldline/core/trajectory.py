"""Camera paths: from recorded poses to motions the live rig can make, and back to files.

A path is poses at a rate per second of video. It is resampled to latent frames and followed as the
rig can follow it: yaw, pitch and a walk on the ground, each at full speed at most. What is too fast
lags behind and catches up where the path is slower; roll and height are not followed. The start of
the path is laid on wherever the camera is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldline.core.camera import Intrinsics, check_poses, interpolate_poses
from worldline.core.chunk import PICTURES
from worldline.core.errors import ControlError
from worldline.core.motion import Motion, Pose, Rig, clipped
from worldline.core.rotation import inverse, multiply

Array = NDArray[np.float64]

MAX_LATENT_FRAMES: Final = 16_384  # more than an hour at 4 latent frames per second
MAX_DISTANCE: Final = 1e6  # world units from the origin; beyond it float64 is no walk any more
_UPRIGHT: Final = math.sin(math.radians(1.0))
_TO_OPENGL: Final = (1.0, -1.0, -1.0, 1.0)


class _Track(NamedTuple):
    """A path as the rig sees it, per pose: ground position in world units, angles in radians."""

    x: Array
    z: Array
    yaw: Array
    pitch: Array


def motions_along(
    c2w: ArrayLike, *, rate: float, latent_s: float, rig: Rig, scale: float = 1.0
) -> tuple[Motion, ...]:
    """The motions that follow poses `[N, 4, 4]` or `[N, 3, 4]` (or rows of 12), one a latent frame.

    `rate` poses make a second of video, a latent frame is `latent_s` seconds long; distances are
    multiplied by `scale`. The path's y axis is down, unless its first camera does not stand upright
    in it: then that camera is taken as level. Raises `ControlError` for what is no path, and for
    one of more than `MAX_LATENT_FRAMES`.
    """
    poses = as_poses(c2w)
    count = latent_frames(len(poses), rate=rate, latent_s=latent_s)
    at = np.minimum(np.arange(count + 1) * (latent_s * rate), len(poses) - 1.0)
    track = _resampled(_track(poses), at)
    return tuple(_follow(track, rig, scale))


def latent_frames(poses: int, *, rate: float, latent_s: float) -> int:
    """Latent frames that so many poses last. Raises `ControlError`; see `motions_along`."""
    if not (0 < rate < math.inf and 0 < latent_s < math.inf) or poses < 2:
        raise ControlError(
            "no path", expected="two poses or more, a positive rate", got=f"{poses} at {rate}"
        )
    frames = (poses - 1) / rate / latent_s
    if not frames <= MAX_LATENT_FRAMES:
        raise ControlError(
            "the path is too long",
            expected=f"at most {MAX_LATENT_FRAMES} latent frames",
            got=f"{frames:.0f}",
        )
    return max(1, math.ceil(frames - 1e-9))


def full_speed_scale(c2w: ArrayLike, *, rate: float, latent_s: float, rig: Rig) -> float:
    """The `scale` at which the fastest latent frame of a path walks at full speed; 1 if none walks.

    For paths whose units are not ours; the official code divides by the longest step likewise.
    """
    poses = as_poses(c2w)
    count = latent_frames(len(poses), rate=rate, latent_s=latent_s)
    at = np.minimum(np.arange(count + 1) * (latent_s * rate), len(poses) - 1.0)
    track = _resampled(_track(poses), at)
    longest = float(np.hypot(np.diff(track.x), np.diff(track.z)).max())
    return rig.move / longest if longest > 0 else 1.0


def as_poses(rows: ArrayLike) -> Array:
    """Poses `[N, 4, 4]` of these, of `[N, 3, 4]` or of rows of 12. Raises `ControlError`."""
    try:
        array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ControlError("poses are no array", expected="[N, 12]", got=error) from error
    if array.shape[1:] in ((12,), (3, 4)):
        last = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0]), (len(array), 1, 4))
        array = np.concatenate([array.reshape(-1, 3, 4), last], axis=1)
    poses = check_poses(array)
    if np.abs(poses[:, :3, 3]).max() > MAX_DISTANCE:
        raise ControlError("a pose is too far away", expected=f"within {MAX_DISTANCE:g} units")
    return poses


def poses_array(poses: Sequence[Pose]) -> NDArray[np.float32]:
    """Poses per latent frame as `poses.npy` holds them: camera-to-world `[n, 4, 4]`."""
    return as_poses([pose.c2w for pose in poses]).astype(np.float32)


def per_picture(poses: Sequence[Pose]) -> NDArray[np.float32]:
    """Poses of all pictures of a walk from its start, `[1 + 4(n-1), 4, 4]`.

    Latent frame 0 is one picture; of every later one the last picture is at its pose, those before
    are between it and the one before. `worldline generate --poses` reads this.
    """
    array = as_poses([pose.c2w for pose in poses])
    count = 1 + PICTURES * (len(array) - 1)
    return interpolate_poses(array, count).astype(np.float32)


def intrinsics_array(k: Intrinsics, count: int) -> NDArray[np.float32]:
    """Intrinsics as `intrinsics.npy` holds them, `[count, 4]`; `k` of an 832x480 picture."""
    return np.tile(np.array(k, dtype=np.float32), (count, 1))


def transforms(
    c2w: ArrayLike, k: Intrinsics, *, size: tuple[int, int], name: str = "images/{:05d}.png"
) -> dict[str, Any]:
    """What `transforms.json` holds for NeRF and splat tools: OpenGL axes, one entry per pose.

    `k` are the intrinsics of the picture of `size` (width, height); `name` is the file of each.
    """
    poses = as_poses(c2w) * np.array(_TO_OPENGL)  # columns y and z point the other way
    return {
        "camera_model": "OPENCV",
        "w": size[0],
        "h": size[1],
        "fl_x": k.fx,
        "fl_y": k.fy,
        "cx": k.cx,
        "cy": k.cy,
        "frames": [
            {"file_path": name.format(i), "transform_matrix": pose.tolist()}
            for i, pose in enumerate(poses)
        ],
    }


def _track(poses: Array) -> _Track:
    right = poses[0, :3, 0]
    if abs(right[1]) > _UPRIGHT or poses[0, 1, 1] <= 0:
        poses = multiply(inverse(poses[:1]), poses)
    # By the right axis, which roll and a steep look leave on the ground.
    yaw = np.unwrap(np.arctan2(-poses[:, 2, 0], poses[:, 0, 0]))
    ahead = poses[:, :3, 2]
    pitch = np.arctan2(-ahead[:, 1], np.hypot(ahead[:, 0], ahead[:, 2]))
    return _Track(poses[:, 0, 3], poses[:, 2, 3], yaw, pitch)


def _resampled(track: _Track, at: Array) -> _Track:
    index = np.arange(len(track.x), dtype=np.float64)
    return _Track(*(np.interp(at, index, values) for values in track))


def _follow(track: _Track, rig: Rig, scale: float) -> list[Motion]:
    """One motion per pose after the first: towards it, from where the motions before have led."""
    motions: list[Motion] = []
    x, z, yaw, pitch = (float(values[0]) for values in track)
    x, z = x * scale, z * scale
    turn, tilt = math.radians(rig.yaw_deg), math.radians(rig.pitch_deg)
    for to_x, to_z, to_yaw, to_pitch in zip(
        *(values[1:].tolist() for values in track), strict=True
    ):
        turned, tilted = _share(to_yaw - yaw, turn), _share(to_pitch - pitch, tilt)
        yaw, pitch = yaw + turned * turn, pitch + tilted * tilt
        east, north = (to_x * scale - x) / rig.move, (to_z * scale - z) / rig.move
        fast = max(math.hypot(east, north), 1.0)
        east, north = east / fast, north / fast
        x, z = x + east * rig.move, z + north * rig.move
        c, s = math.cos(yaw), math.sin(yaw)
        motions.append(
            clipped(east * c - north * s, east * s + north * c, yaw=turned, pitch=tilted)
        )
    return motions


def _share(angle: float, full: float) -> float:
    return min(max(angle / full, -1.0), 1.0) if full > 0 else 0.0
