"""Actions of an agent as controls of a world.

`keys` is a small discrete space: standing still, each key, and walking ahead while turning.
`motion` is four shares of full speed: right, ahead, yaw right, pitch up.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import gymnasium
import numpy as np

from worldline.core.errors import ControlError
from worldline.core.motion import Motion, clipped, from_actions

Kind = Literal["keys", "motion"]
KEYS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("w",),
    ("s",),
    ("a",),
    ("d",),
    ("j",),
    ("l",),
    ("i",),
    ("k",),
    ("w", "j"),
    ("w", "l"),
)


def action_space(kind: Kind) -> gymnasium.Space[Any]:
    """`Discrete(11)` for keys, `Box(-1, 1, (4,), float32)` for motions."""
    if kind == "keys":
        return gymnasium.spaces.Discrete(len(KEYS))
    return gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)


def motion_of(space: gymnasium.Space[Any], action: Any) -> Motion:
    """The motion of one latent frame. Raises: ControlError for what is not in the space."""
    if not space.contains(action):
        raise ControlError("not an action of this environment", expected=space, got=action)
    if isinstance(space, gymnasium.spaces.Discrete):
        return from_actions(KEYS[int(action)])
    x, z, yaw, pitch = (float(share) for share in action)
    return clipped(x, z, yaw=yaw, pitch=pitch)
