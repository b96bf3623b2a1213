"""Camera poses in plain numpy, float64: the live rig, and the offline path of the official code.

A pose is camera-to-world, `[4, 4]`, OpenCV axes: x right, y down, z forward. The live rig keeps a
state of fixed size and divides translations by its declared full speed, so the scale of a motion
never depends on what was done before. The offline path divides by the largest step of the whole
clip, as the official code does (facts: lingbot_model, section 7; realtime_wire, 2.5 and 2.6).
Knows nothing about torch, tokens or rays.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldline.core.errors import ControlError
from worldline.core.motion import Motion, Pose, check_motion, from_actions
from worldline.core.motion import Rig as Rig
from worldline.core.rotation import (
    inverse,
    matrices,
    multiply,
    nearest_rotation,
    orthonormal,
    quaternion,
    slerp,
    turn,
)

Array = NDArray[np.float64]

REFERENCE_WIDTH = 832
REFERENCE_HEIGHT = 480
# The official code adds this to the length of a ground-projected axis before dividing by it.
_AXIS_EPSILON = 1e-6
_ROTATION_TOLERANCE = 1e-2


class Intrinsics(NamedTuple):
    """Focal lengths and principal point in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


# For an 832x480 picture, like every intrinsic from outside.
DEFAULT_INTRINSICS = Intrinsics(500.0, 500.0, 416.0, 240.0)


def _fixed(array: Array) -> Array:
    array.setflags(write=False)
    return array


class CameraState(NamedTuple):
    """All that a live camera remembers: its pose `[4, 4]` and the degrees turned, up and right."""

    c2w: Array
    pitch_deg: float
    yaw_deg: float = 0.0  # not wrapped; only told, never used

    @property
    def pose(self) -> Pose:
        """What viewers and recordings are told of it."""
        rows = tuple(float(value) for value in self.c2w[:3].flatten())
        return Pose(rows, self.yaw_deg, self.pitch_deg)


START = CameraState(_fixed(np.eye(4)), 0.0)


def check_intrinsics(k: Intrinsics) -> Intrinsics:
    """The intrinsics themselves; raises `ControlError` unless they are those of a camera."""
    if not all(math.isfinite(value) for value in k) or not (k.fx > 0 and k.fy > 0):
        raise ControlError("unusable intrinsics", expected="finite, focal lengths > 0", got=k)
    return k


def scale_intrinsics(k: Intrinsics, width: int, height: int) -> Intrinsics:
    """Carry intrinsics of an 832x480 picture over to `width` x `height` pixels."""
    x, y = width / REFERENCE_WIDTH, height / REFERENCE_HEIGHT
    return Intrinsics(k.fx * x, k.fy * y, k.cx * x, k.cy * y)


def advance(state: CameraState, controls: Collection[str] | Motion, rig: Rig) -> CameraState:
    """Move the live camera by one latent frame, by letters or by a motion; pure.

    Yaw turns about world y, pitch about camera x; the move uses the new rotation, stays on the
    ground and is at full speed `rig.move` long in every direction. Opposite keys cancel. A pitch
    step that would pass the limit ends at the limit. Raises `ControlError` for an unknown action
    and for a motion beyond full speed.
    """
    motion = check_motion(controls) if isinstance(controls, Motion) else from_actions(controls)
    pitch = state.pitch_deg + motion.pitch * rig.pitch_deg
    pitch = min(max(pitch, -rig.pitch_limit_deg), rig.pitch_limit_deg)
    yaw = motion.yaw * rig.yaw_deg
    rotation = turn(state.c2w[:3, :3], yaw, pitch - state.pitch_deg)
    length = math.hypot(motion.z, motion.x)
    step = _ground(rotation, 2) * motion.z + _ground(rotation, 0) * motion.x
    c2w = np.eye(4)
    c2w[:3, :3] = orthonormal(rotation)
    c2w[:3, 3] = state.c2w[:3, 3]
    if length > 0:
        c2w[:3, 3] += step * (rig.move / max(length, 1.0))
    return CameraState(c2w, pitch, state.yaw_deg + yaw)


def relative_pose(prev_c2w: Array, c2w: Array, scale: float) -> Array:
    """Motion from one pose to the next in the first one's frame, translation divided by `scale`."""
    if not scale > 0:
        raise ControlError("the scale of a live camera must be positive", got=scale)
    motion = multiply(inverse(prev_c2w), c2w)
    motion[:3, 3] /= scale
    return motion


def poses_from_keys(
    wasd: ArrayLike, ijkl: ArrayLike, *, move: float = 0.05, degrees: float = 2.0
) -> Array:
    """Integrate key arrays `[F, 4]` into camera poses `[F+1, 4, 4]`, the first one the identity.

    As the official code: per pixel frame, diagonals longer than straight moves, and a pitch step
    that would pass 85 degrees dropped. Raises `ControlError` for wrong shapes or numbers.
    """
    walk, look = check_keys(wasd, "wasd"), check_keys(ijkl, "ijkl")
    if len(walk) != len(look):
        raise ControlError("wasd and ijkl differ in length", expected=len(walk), got=len(look))
    poses = np.tile(np.eye(4), (len(walk) + 1, 1, 1))  # F+1 4 4
    pitch = 0.0
    for i, (w, a, s, d, up, left, down, right) in enumerate(np.hstack([walk, look])):
        tilt = (up - down) * degrees
        if abs(pitch + tilt) > Rig().pitch_limit_deg:
            tilt = 0.0
        pitch += tilt
        rotation = turn(poses[i, :3, :3], (right - left) * degrees, tilt)
        ahead = _ground(rotation, 2, _AXIS_EPSILON)
        aside = _ground(rotation, 0, _AXIS_EPSILON)
        step = ahead * (w - s) + aside * (d - a)
        poses[i + 1, :3, :3] = rotation
        poses[i + 1, :3, 3] = poses[i, :3, 3] + step * move
    return poses


def interpolate_poses(c2w: ArrayLike, count: int) -> Array:
    """Resample poses `[N, 4, 4]` evenly to `[count, 4, 4]`: linear translation, slerp rotation.

    Rotations are first brought to the nearest exact one, which the official code also does.
    Raises `ControlError`.
    """
    poses = check_poses(c2w)
    if count < 1:
        raise ControlError("cannot resample poses", expected="at least 1 pose", got=count)
    at = np.linspace(0, len(poses) - 1, count)
    low = np.minimum(at.astype(np.int64), max(len(poses) - 2, 0))
    high = np.minimum(low + 1, len(poses) - 1)
    part = (at - low)[:, None]
    rotations = nearest_rotation(poses[:, :3, :3])
    quaternions = np.stack([quaternion(rotation) for rotation in rotations])  # N 4
    result = np.tile(np.eye(4), (count, 1, 1))
    result[:, :3, :3] = matrices(slerp(quaternions[low], quaternions[high], part))
    result[:, :3, 3] = poses[low, :3, 3] * (1 - part) + poses[high, :3, 3] * part
    return result


def relative_to_first(c2w: ArrayLike, *, normalise: bool = True) -> NDArray[np.float32]:
    """Express poses `[n, 4, 4]` in the frame of the first one, which becomes the identity.

    With `normalise` the translations are divided by the largest one of the clip, if there is any.
    NOTE float32 on purpose, with products summed in order: in world coordinates of thousands the
    rounding is larger than the tolerance, so parity with the official code needs the same one.
    """
    poses = check_poses(c2w).astype(np.float32)
    result = multiply(inverse(poses[:1]), poses)  # n 4 4
    result[0] = np.eye(4)
    return _normalised(result) if normalise else result


def framewise_relative(c2w: ArrayLike, *, normalise: bool = True) -> NDArray[np.float32]:
    """Motion of each pose since the one before, float32 `[n, 4, 4]`, the first one the identity.

    Computed from `relative_to_first`, as the official code does; `normalise` as there.
    """
    first = relative_to_first(c2w, normalise=False)
    result = first.copy()
    result[1:] = multiply(inverse(first[:-1]), first[1:])
    return _normalised(result) if normalise else result


class Trajectory(NamedTuple):
    """A recorded camera path: poses `[N, 4, 4]`, intrinsics of an 832x480 picture."""

    c2w: Array
    intrinsics: Intrinsics


def load_trajectory(poses: Path | str, intrinsics: Path | str) -> Trajectory:
    """Read a path from two `.npy` files: poses `[N, 4, 4]` and intrinsics `[N, 4]` or `[4]`.

    Only the first row of the intrinsics counts, as in the official code. Raises `ControlError`
    for files that cannot be read, wrong shapes, NaN, poses that are no rotations, and focal
    lengths that are not positive.
    """
    c2w = check_poses(_read_npy(poses))
    k = _numbers(_read_npy(intrinsics), "intrinsics")
    if k.shape[-1:] != (4,) or k.ndim not in (1, 2) or k.size == 0:
        raise ControlError("intrinsics have the wrong shape", expected="[N, 4]", got=k.shape)
    first = Intrinsics(*(float(value) for value in k.reshape(-1, 4)[0]))
    if first.fx <= 0 or first.fy <= 0:
        raise ControlError("focal lengths must be positive", got=(first.fx, first.fy))
    return Trajectory(c2w, first)


def _read_npy(path: Path | str) -> NDArray[np.generic]:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise ControlError("cannot read the array file", expected=".npy", got=error) from error


def check_poses(c2w: ArrayLike) -> Array:
    """Return poses as float64 `[N, 4, 4]`; raises `ControlError` unless they are rigid poses."""
    poses = _numbers(c2w, "poses")
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0:
        raise ControlError("poses have the wrong shape", expected="[N, 4, 4]", got=poses.shape)
    if not np.allclose(poses[:, 3], [0.0, 0.0, 0.0, 1.0], atol=1e-6):
        raise ControlError("the last row of a pose is wrong", expected="0 0 0 1")
    rotation = poses[:, :3, :3]
    if not _are_rotations(rotation):
        raise ControlError("a pose holds no rotation", expected="orthonormal, right-handed axes")
    return poses


def _are_rotations(matrices: Array) -> bool:
    """Whether all of `[N, 3, 3]` turn and do nothing else."""
    if np.abs(matrices).max() > 1 + _ROTATION_TOLERANCE:  # squares of more may overflow
        return False
    off = np.abs(matrices.transpose(0, 2, 1) @ matrices - np.eye(3)).max()
    return bool(off <= _ROTATION_TOLERANCE and (np.linalg.det(matrices) >= 0).all())


def check_keys(keys: ArrayLike, name: str) -> Array:
    """Return key states as float64 `[F, 4]`; raises `ControlError` for other shapes or NaN."""
    array = _numbers(keys, name)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ControlError(f"{name} has the wrong shape", expected="[F, 4]", got=array.shape)
    return array


def _numbers(values: ArrayLike, name: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ControlError(f"{name} are no array", expected="equal rows", got=error) from error
    if array.dtype.kind not in "fiub":
        raise ControlError(f"{name} are not numbers", expected="real numbers", got=array.dtype)
    if not np.isfinite(array).all():
        raise ControlError(f"{name} hold NaN or infinite values", expected="finite numbers")
    return array.astype(np.float64)


def _ground(rotation: Array, column: int, epsilon: float = 0.0) -> Array:
    """A camera axis projected on the ground and brought to unit length."""
    axis = np.array([rotation[0, column], 0.0, rotation[2, column]])
    return axis / (math.hypot(axis[0], axis[2]) + epsilon)


def _normalised(poses: NDArray[np.float32]) -> NDArray[np.float32]:
    longest = np.linalg.norm(poses[:, :3, 3], axis=-1).max()
    if longest > 0:
        poses[:, :3, 3] /= longest
    return poses
