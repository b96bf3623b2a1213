"""Action tokens and the official action strings.

A token is one of w a s d (walk) and i j k l (look: up, left, down, right). An action string such
as "w-10,iw-15,none-5" names the keys held and for how many pixel frames. Nothing here knows what
an action does; `core.camera` does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ControlError

ACTIONS = "wasdijkl"
WALK = "wasd"
LOOK = "ijkl"
# Two hours at 16 frames per second; a longer string is a typing error, or meant to do harm.
MAX_FRAMES = 115_200
_FORM = "KEYS-FRAMES, for example w-10 or iw-15 or none-5"
_ITEM = re.compile(r"\s*([a-z]+)\s*-\s*([0-9]{1,9})\s*", re.ASCII | re.IGNORECASE)


class Keys(NamedTuple):
    """Key states per frame, 0 or 1: `wasd` and `ijkl`, each float32 `[F, 4]`."""

    wasd: NDArray[np.float32]
    ijkl: NDArray[np.float32]


def check_actions(actions: Collection[str]) -> frozenset[str]:
    """Return the held keys as a set; raises `ControlError` for anything but w a s d i j k l."""
    try:
        held = frozenset(actions)
    except TypeError as error:
        raise ControlError("not a collection of actions", got=error) from error
    unknown = held.difference(ACTIONS)
    if unknown:
        got = ", ".join(sorted(repr(token)[:40] for token in unknown)[:5])
        raise ControlError("unknown action", expected="one of " + " ".join(ACTIONS), got=got)
    return held


def key_states(frames: Sequence[Collection[str]], keys: str) -> NDArray[np.float32]:
    """Which of `keys` are held in each frame, 0 or 1, `[T, len(keys)]`; raises `ControlError`."""
    held = [check_actions(actions) for actions in frames]
    states = [[float(key in actions) for key in keys] for actions in held]
    return np.array(states, dtype=np.float32).reshape(len(held), len(keys))


def parse_action_string(text: str) -> Keys:
    """Read an official action string, upper or lower case, with plain or full-width commas.

    Raises `ControlError` for an empty string, an item of another form, an unknown key, a frame
    count of 0, and more than `MAX_FRAMES` frames in all.
    """
    held: list[frozenset[str]] = []
    for item in text.replace("\N{FULLWIDTH COMMA}", ",").split(","):
        keys, count = _parse_item(item)
        if len(held) + count > MAX_FRAMES:
            raise ControlError("too many action frames", expected=f"at most {MAX_FRAMES}")
        held.extend([keys] * count)
    return Keys(key_states(held, WALK), key_states(held, LOOK))


def _parse_item(item: str) -> tuple[frozenset[str], int]:
    found = _ITEM.fullmatch(item)
    if found is None or int(found[2]) == 0:
        raise ControlError("malformed action string", expected=_FORM, got=repr(item))
    keys = found[1].lower()
    return check_actions("" if keys == "none" else keys), int(found[2])
