"""What a hand asks of the camera for one latent frame, and where the camera then is.

A `Motion` is in shares of the rig's full speed, so it knows neither units nor sizes. Letters are
motions too: `from_actions` gives the one that moves the camera exactly as they always did. Knows
nothing about numpy, keys held or time; `core.camera` does the geometry.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from worldline.core.actions import check_actions
from worldline.core.errors import ControlError


class Rig(msgspec.Struct, frozen=True):
    """Full speed of the live camera, per latent frame: `move` in world units, angles in degrees."""

    move: float = 0.05
    yaw_deg: float = 6.0
    pitch_deg: float = 4.0
    pitch_limit_deg: float = 85.0


class Motion(msgspec.Struct, frozen=True, array_like=True):
    """Shares of full speed in [-1, 1]: `x` to the right, `z` ahead, `yaw` right, `pitch` up.

    A walk is never faster than full speed: on a diagonal (1, 1) counts as long as (1, 0).
    """

    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def scaled(self, share: float) -> Motion:
        """This motion at `share` of its speed; a walk beyond full speed is full speed first."""
        beyond = max(math.hypot(self.x, self.z), 1.0)
        x, z = (share * way / beyond for way in (self.x, self.z))
        return clipped(x, z, yaw=share * self.yaw, pitch=share * self.pitch)


class Pose(msgspec.Struct, frozen=True, array_like=True):
    """Where the camera is at a latent frame: camera-to-world, OpenCV axes; it starts at identity.

    `c2w` are the rows of a 3x4 matrix; `yaw` and `pitch` the degrees turned since the start, right
    and up, not wrapped at 360.
    """

    c2w: tuple[float, ...]
    yaw: float = 0.0
    pitch: float = 0.0


MOTIONLESS: Final = Motion()
START_POSE: Final = Pose((1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))


def from_actions(actions: Collection[str]) -> Motion:
    """The motion that held letters give; opposite ones cancel. Raises `ControlError`."""
    held = check_actions(actions)
    return Motion(
        x=float(("d" in held) - ("a" in held)),
        z=float(("w" in held) - ("s" in held)),
        yaw=float(("l" in held) - ("j" in held)),
        pitch=float(("i" in held) - ("k" in held)),
    )


def clipped(x: float, z: float, *, yaw: float = 0.0, pitch: float = 0.0) -> Motion:
    """A motion of these shares, each limited to full speed. Raises `ControlError` for NaN."""
    return check_motion(Motion(*(min(max(share, -1.0), 1.0) for share in (x, z, yaw, pitch))))


def check_motion(motion: Motion) -> Motion:
    """The motion itself; raises `ControlError` unless all shares are numbers in [-1, 1]."""
    shares = (motion.x, motion.z, motion.yaw, motion.pitch)
    if not all(-1.0 <= share <= 1.0 for share in shares):  # false for NaN
        raise ControlError("a motion beyond full speed", expected="four in [-1, 1]", got=shares)
    return motion


def check_rig(rig: Rig) -> Rig:
    """The rig itself; raises `ControlError` unless a camera can be moved by it."""
    speeds = (rig.yaw_deg, rig.pitch_deg)
    fits = 0.0 < rig.move < math.inf and all(0.0 <= speed <= 180.0 for speed in speeds)
    if not fits or not 0.0 <= rig.pitch_limit_deg < 90.0:
        raise ControlError(
            "unusable camera rig",
            expected="a positive move, angles of 0 to 180, a pitch limit below 90 degrees",
            got=rig,
        )
    return rig


def motions_of(script: Iterable[Collection[str]]) -> tuple[Motion, ...]:
    """The motion of each latent frame of a script of letters. Raises `ControlError`."""
    return tuple(from_actions(actions) for actions in script)
