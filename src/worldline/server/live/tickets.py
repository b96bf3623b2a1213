"""Tokens that open worlds again: only digests are kept, a few of each world's."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

MAX_KEYS: Final = 8  # tokens of one world: of its holder, and of those who were


class Tickets:
    """Of one server process. A token is told once and not kept."""

    def __init__(self) -> None:
        self._worlds: dict[bytes, str] = {}

    def issue(self, world: str) -> str:
        """A new token; the oldest of this world opens nothing any more."""
        token = secrets.token_urlsafe(32)
        older = [key for key, name in self._worlds.items() if name == world]
        for key in older[: 1 - MAX_KEYS]:
            del self._worlds[key]
        self._worlds[digest(token)] = world
        return token

    def world_of(self, token: str) -> str:
        """Which world it opens; empty for none."""
        return self._worlds.get(digest(token), "")

    def forget(self, world: str) -> None:
        """The world is gone."""
        self._worlds = {key: name for key, name in self._worlds.items() if name != world}


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()
