"""One pair of eyes: what waits to be written to one socket, and the task that writes it.

Nothing here ever makes a world wait: `send` and `offer` return at once. Control messages are never
dropped and go before pictures; while more than a few wait, a newer message replaces an older one of
those kinds of which only the newest matters. A reader that lets too many pile up all the same is
given up: `run` raises `ReaderStuck`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from worldline.core.clock import Clock
from worldline.core.live.server import (
    Chunk,
    ControlOf,
    Frame,
    Pong,
    Queued,
    ServerMessage,
    StateChange,
)
from worldline.core.live.shared import Format
from worldline.server.live.following import Following, Pace, Turn, Unit
from worldline.server.outbox import Outbox, SocketClosed

PATIENCE: Final = 32
MOST_MESSAGES: Final = 4096
_ENCODER: Final = msgspec.msgpack.Encoder()
_ONLY_THE_NEWEST: Final = (Chunk, ControlOf, Frame, Pong, Queued, StateChange)

Still = Callable[[Format], Awaitable[Unit | None]]


class ReaderStuck(SocketClosed):
    """The other side has not read for so long that its messages no longer fit."""


class Viewer:
    """One socket's share of a world. `run` is the task that writes; the rest never blocks."""

    limit_kbps = 0  # TCP says nothing of its own; what waits does

    def __init__(
        self, outbox: Outbox, clock: Clock, *, id: str = "", format: Format = "jpeg"
    ) -> None:
        self.id = id
        self.format: Format = format
        self.holder = False
        self.following: Following | None = None
        self._outbox = outbox
        self._clock = clock
        self._still: Still | None = None
        self._messages: deque[ServerMessage] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()  # no control message waits
        self._idle.set()
        self._calm = asyncio.Event()  # nothing waits, no picture either
        self._calm.set()
        self._stuck = self._ended = False

    @property
    def waiting(self) -> int:
        """Control messages that are not written yet."""
        return len(self._messages)

    def send(self, message: ServerMessage) -> None:
        """Queue a control message; it goes before every picture."""
        if len(self._messages) >= PATIENCE and isinstance(message, _ONLY_THE_NEWEST):
            older = next((m for m in self._messages if type(m) is type(message)), None)
            if older is not None:
                self._messages.remove(older)
        if not self._ended:
            self._messages.append(message)
        self._stuck = self._stuck or len(self._messages) > MOST_MESSAGES
        self._rouse()

    def begin(self, format: Format, pace: Pace, still: Still) -> None:
        """Show a world from now on; `still` makes a picture when this viewer is behind."""
        self.format = format
        self.following = Following(chained=format == "h264", pace=pace)
        self._still = still

    def end(self) -> None:
        """Show nothing more; control messages still go."""
        self.following = self._still = None

    def offer(self, unit: Unit) -> None:
        """A picture of this viewer's format; kept or dropped."""
        if self.following is not None:
            self.following.offer(unit, self._clock.now())
            self._rouse()

    def saw(self, number: int) -> None:
        """Picture `number` exists, so a still of it could be had."""
        if self.following is not None:
            self.following.saw(number)
            if self.following.behind:
                self._rouse()

    def shown(self, number: int) -> None:
        """The client reports the picture on its screen."""
        if self.following is not None:
            self.following.shown(number)
            self._rouse()

    async def flush(self) -> None:
        """Return once every control message so far is written, or `run` has ended."""
        await self._idle.wait()

    async def settle(self) -> None:
        """Return once nothing can be written any more, pictures too, or `run` has ended."""
        await self._calm.wait()

    async def run(self) -> None:
        """Write until cancelled.

        Raises: SocketClosed once the peer is gone, ReaderStuck when it reads nothing any more.
        """
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while await self._write_one():
                    pass
                if not self._wake.is_set():
                    self._calm.set()
        finally:
            self._ended = True
            self._idle.set()
            self._calm.set()

    async def _write_one(self) -> bool:
        if self._stuck:
            raise ReaderStuck
        if self._messages:
            await self._outbox.send(_ENCODER.encode(self._messages.popleft()))
            if not self._messages:
                self._idle.set()
            return True
        following = self.following
        if following is None:
            return False
        taken = following.take(self._clock.now())
        if taken is Turn.WAIT:
            return False
        unit = await self._make_still(following) if isinstance(taken, Turn) else taken
        if unit is not None:
            start = self._clock.now()
            await self._outbox.send(unit.message)
            following.wrote(unit.number, self._clock.now() - start)
        return True

    async def _make_still(self, following: Following) -> Unit | None:
        """A still of the newest picture, unless the viewer came back to the stream meanwhile."""
        if self._still is None:
            return None
        unit = await self._still(self.format)
        return unit if following.behind and self.following is following else None

    def _rouse(self) -> None:
        if self._ended:
            return
        if self._messages:
            self._idle.clear()
        self._calm.clear()
        self._wake.set()
