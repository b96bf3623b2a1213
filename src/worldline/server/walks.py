"""The open sessions of a server, of both dialects, as their administrators ask them by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from worldline.core.errors import ControlError, UnknownWorldError, WorldlineError
from worldline.core.live.client import Branch, Rewind, Save


class TakeSnapshot(NamedTuple):
    """Write the session to a file as it stands, bit for bit."""


class Restore(NamedTuple):
    """Stand where a snapshot of this session was taken, which lies at `path`."""

    path: str


Wish = Rewind | Branch | Save | TakeSnapshot | Restore


class Walking(Protocol):
    """A session that can be asked by its name."""

    @property
    def nbytes(self) -> int:
        """Bytes of the snapshot that is kept to bring it back."""
        ...

    def ask(self, wish: Wish, tell: Callable[[Any], None]) -> None:
        """Do it at the next pause, then `tell` what came of it. Raises: WorldlineError."""
        ...


def check_wish(wish: Wish) -> None:
    """Raises: ControlError unless it says where to go, in one way."""
    if isinstance(wish, Rewind) and (wish.chunk is None) == (wish.seconds is None):
        raise ControlError("where to go back to?", expected="one of chunk and seconds")


class Walks:
    """The open sessions of one server process, of both dialects, by name.

    `recovered` and `lost` count those whose worker died, by whether they went on in another.
    """

    def __init__(self) -> None:
        self.recovered = self.lost = 0
        self._walks: dict[str, Walking] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that are open."""
        return tuple(self._walks)

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots that are kept."""
        return sum(walk.nbytes for walk in self._walks.values())

    def open(self, name: str, walk: Walking) -> None:
        """It can be asked from now on."""
        self._walks[name] = walk

    def close(self, name: str) -> None:
        """It cannot any more; a name that is not there is no error."""
        self._walks.pop(name, None)

    async def ask(self, name: str, wish: Wish) -> Any:
        """What came of it. Raises: UnknownWorldError, and what went wrong."""
        walk = self._walks.get(name)
        if walk is None:
            raise UnknownWorldError("there is no such open world", got=repr(name[:40]))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def tell(outcome: object) -> None:
            if not answer.done():
                answer.set_result(outcome)

        walk.ask(wish, tell)
        outcome = await answer
        if isinstance(outcome, WorldlineError):
            raise outcome
        return outcome
