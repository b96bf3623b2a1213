"""Pictures in formats that are not the holder's: made one at a time, and nobody waits for them.

Few may wait, and of those the newest win: who asks for a costly format gets fewer pictures then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from worldline.core.live.shared import Format
from worldline.server.live.renditions import Picture
from worldline.server.waiting import stop

MOST: Final = 12  # pictures that wait: about a chunk, which comes in one go

Make = Callable[[Picture, Format], Awaitable[object]]


class Beside:
    """Of one world. `make` encodes one picture in one format and offers it."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._waiting: deque[tuple[Picture, Sequence[Format]]] = deque(maxlen=MOST)
        self._task: asyncio.Task[None] | None = None

    def put(self, picture: Picture, kinds: Sequence[Format]) -> None:
        """Make `picture` when there is time; its pixels stay as they are. Returns at once."""
        self._waiting.append((picture, kinds))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def settle(self) -> None:
        """Return once everything so far is made or was overtaken."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Make nothing more, and return when no thread reads pixels any more."""
        self._waiting.clear()
        await stop(self._task)

    async def _work(self) -> None:
        while self._waiting:
            picture, kinds = self._waiting.popleft()
            for kind in kinds:
                await self._make(picture, kind)
