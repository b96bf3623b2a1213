"""A connection that is closed while nobody waits for it any more."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection

from worldline.client.line import SocketLine

pytestmark = pytest.mark.anyio


class Socket:
    """Its other end answers when `answered` is set."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.closed = False

    async def close(self) -> None:
        await self.answered.wait()
        self.closed = True


async def test_whoever_closes_a_line_and_is_cancelled_leaves_none_half_closed() -> None:
    """A world that has ended closes its line while its visitor leaves, which cancels that."""
    socket = Socket()
    closing = asyncio.create_task(SocketLine(cast(ClientConnection, socket)).close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    socket.answered.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert socket.closed
