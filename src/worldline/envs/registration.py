"""Environments by name."""

from __future__ import annotations

from typing import Final

import gymnasium

POCKET_ID: Final = "worldline/Pocket-v0"


def register() -> None:
    """Make the pocket world known to `gymnasium.make`; doing it again changes nothing."""
    try:
        gymnasium.spec(POCKET_ID)
    except gymnasium.error.UnregisteredEnv:
        gymnasium.register(id=POCKET_ID, entry_point="worldline.envs.env:WorldEnv")
