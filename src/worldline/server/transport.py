"""A Starlette socket as the outbox writes to it."""

from __future__ import annotations

from starlette.websockets import WebSocket, WebSocketDisconnect

from worldline.core.messages import clip
from worldline.server.outbox import SocketClosed

REASON_BYTES = 120  # a close frame has room for 123
# RuntimeError: the server below has already closed, after a message above the limit for example.
_GONE = (WebSocketDisconnect, RuntimeError)


class SocketTransport:
    """Implements `outbox.Transport`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send(self, data: bytes | memoryview) -> None:
        """Write one binary message; raises SocketClosed once the peer is gone."""
        try:
            await self._socket.send({"type": "websocket.send", "bytes": data})
        except _GONE as error:
            raise SocketClosed from error

    async def close(self, code: int, reason: str) -> None:
        """Write a close frame; raises SocketClosed once the peer is gone."""
        try:
            await self._socket.close(code, clip(reason, REASON_BYTES))
        except _GONE as error:
            raise SocketClosed from error
