"""World files that were saved, until somebody fetches them: kilobytes each, in memory, bounded.

The oldest go when there are too many, and all after a while, as recordings do.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from worldline.core.clock import Clock
from worldline.core.config import ServerConfig

MOST_BYTES: Final = 256 * 2**20
MOST_OF_A_WORLD: Final = 16


class Saved(NamedTuple):
    """The `number`-th file of this server, of a world."""

    world: str
    number: int
    data: bytes
    at: float

    @property
    def url(self) -> str:
        """Where it can be fetched, relative to the server."""
        return f"/v1/worlds/{self.world}/saved/{self.number}.wl"


class Saves:
    """Of one server process."""

    def __init__(self, config: ServerConfig, clock: Clock) -> None:
        self._keep_s = config.recording_keep_s
        self._clock = clock
        self._files: list[Saved] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._files)

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return sum(len(one.data) for one in self._files)

    def put(self, world: str, data: bytes) -> Saved:
        """Keep a file; older ones make room."""
        self._forget_old()
        mine = [one for one in self._files if one.world == world]
        for one in mine[: 1 - MOST_OF_A_WORLD]:
            self._files.remove(one)
        while self._files and self.bytes + len(data) > MOST_BYTES:
            del self._files[0]
        self._count += 1
        saved = Saved(world, self._count, data, self._clock.now())
        self._files.append(saved)
        return saved

    def find(self, world: str, number: int) -> Saved | None:
        """A file that is still there."""
        self._forget_old()
        found = (one for one in self._files if (one.world, one.number) == (world, number))
        return next(found, None)

    def _forget_old(self) -> None:
        now = self._clock.now()
        if self._keep_s:
            self._files = [one for one in self._files if now - one.at <= self._keep_s]
