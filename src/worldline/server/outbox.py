"""The one writer of a socket.

Everything that leaves goes through a bounded queue of groups; a group is one message, or a frame
header and its payload, and is written without anything in between. A caller waits until its group
is written, so a slow reader slows the callers and no memory grows.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, Protocol

from worldline.core.clock import Clock

QUEUE_LIMIT: Final = 8


class SocketClosed(Exception):
    """The other side is gone, or the close frame was sent."""


class Transport(Protocol):
    """Where messages go; both methods raise SocketClosed once the peer is gone."""

    async def send(self, data: bytes | memoryview) -> None:
        """Write one binary message."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Write a close frame."""
        ...


class _Item(NamedTuple):
    parts: tuple[bytes | memoryview, ...]
    close: tuple[int, str] | None
    done: asyncio.Future[list[float]]


class Outbox:
    """Queue and writer of one socket. `run` is the writer task; the rest is for everyone else."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(QUEUE_LIMIT)
        self._closed = False

    @property
    def waiting(self) -> int:
        """Groups in the queue."""
        return self._queue.qsize()

    async def send(self, *parts: bytes | memoryview) -> list[float]:
        """Write one group; returns how long each part took, in seconds, once all are written.

        Raises: SocketClosed when the group can no longer be written.
        """
        return await self._put(parts, None)

    async def close(self, code: int, reason: str) -> None:
        """Write a close frame after everything queued so far; nothing can follow it.

        Raises: SocketClosed when the peer left first.
        """
        await self._put((), (code, reason))

    async def run(self) -> None:
        """Write until cancelled; once a write has failed, nothing more is written."""
        while True:
            item = await self._queue.get()
            try:
                times = await self._write(item)
            except Exception as error:  # raised again by whoever waits for this group
                self._closed = True
                if not item.done.done():
                    item.done.set_exception(error)
            else:
                if not item.done.done():
                    item.done.set_result(times)

    async def _put(
        self, parts: tuple[bytes | memoryview, ...], close: tuple[int, str] | None
    ) -> list[float]:
        if self._closed:
            raise SocketClosed
        done: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Item(parts, close, done))
        return await done

    async def _write(self, item: _Item) -> list[float]:
        if self._closed:
            raise SocketClosed
        if item.close is not None:
            self._closed = True
            await self._transport.close(*item.close)
        times: list[float] = []
        for part in item.parts:
            start = self._clock.now()
            await self._transport.send(part)
            times.append(self._clock.now() - start)
        return times
