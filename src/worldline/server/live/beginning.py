"""What a live world begins from besides its wish: a file, or another world; and whom it may found.

Every part may be missing: a world that begins with a picture alone has neither tape nor fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from worldline.core.live.server import Moment
from worldline.core.walk import WorldFile, WorldStart
from worldline.runtime.protocol import OpenReply
from worldline.server.history import History
from worldline.server.live.saves import Saves


class Fork(NamedTuple):
    """Where a branch left its world: a session of its own already, and the walk up to there."""

    reply: OpenReply
    history: History
    moments: Sequence[Moment]
    start: WorldStart


class Family(Protocol):
    """How a world founds another one."""

    def reserve(self) -> str:
        """A seat and a name for one more. Raises: CapacityError, LimitError, DrainingError."""
        ...

    def found(self, name: str, fork: Fork) -> str:
        """It stands: the token that opens it. From now on it is the house's."""
        ...

    def give_up(self, name: str) -> None:
        """It will not be after all; the seat is free."""
        ...


class Beginning(NamedTuple):
    """`picture` is the start picture as it came, encoded; `file` is what is walked from the start,
    `at_end` unseen."""

    picture: bytes = b""
    file: WorldFile | None = None
    at_end: bool = False
    fork: Fork | None = None
    family: Family | None = None
    saves: Saves | None = None
