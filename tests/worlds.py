"""World files for tests: small, whole, and of every kind of control."""

from __future__ import annotations

import numpy as np

from worldline.core.motion import Motion, Rig
from worldline.core.walk import MadeWith, Stepped, WorldStart, pose_rows
from worldline.core.walked import Walked

PICTURE = b"\x89PNG not looked at"
DIGEST = bytes(range(16))


def start(**changes: object) -> WorldStart:
    """A start of 3 latent frames a chunk."""
    values: dict[str, object] = {
        "picture": PICTURE,
        "pixels": DIGEST,
        "prompt": "a sandy court",
        "seed": 7,
        "width": 48,
        "height": 32,
        "fps": 16,
        "chunk": 3,
        "window": 7,
        "sink": 2,
        "steps": 4,
        "rig": Rig(),
    }
    return WorldStart(**(values | changes))  # type: ignore[arg-type]


def made(**changes: object) -> MadeWith:
    """Made with the tests' tiny weights."""
    values: dict[str, object] = {
        "model": "tiny",
        "weights": "tiny",
        "mode": "exact",
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "torch": "2",
        "machine": "a processor",
        "options": {
            "recache": False,
            "decoder": "full",
            "lossy": ("last_step_kv",),
        },
    }
    return MadeWith(**(values | changes))  # type: ignore[arg-type]


def turned(degrees: float) -> list[list[float]]:
    """A relative pose `4 4`: a step ahead, and a turn to the right."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 1], [0, 0, 0, 1]]


def chunks() -> list[Stepped]:
    """Motions, letters and poses; two prompts, one of them blended; one chunk of fewer steps."""
    ahead = Motion(z=1.0)
    poses = pose_rows([turned(0), turned(3), turned(3)], [[1, 0, 0, 0]] * 3)
    return [
        Stepped(motions=(ahead,) * 3, digest=b"a" * 16),
        Stepped(motions=(ahead, Motion(yaw=-0.1), Motion(x=-0.0)), steps=3, digest=b"b" * 16),
        Stepped(actions=(("w",), ("w", "l"), ()), prompt="a beach", digest=b"c" * 16),
        Stepped(poses=poses, prompt="rain", blend_chunks=2, digest=b"d" * 16),
        Stepped(actions=((), (), ()), digest=b"e" * 16),
    ]


def walked() -> Walked:
    """A walk of five chunks."""
    return Walked(start(), made(), chunks())
