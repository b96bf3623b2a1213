"""What a connection may cost before there is a request: uvicorn's protocols with limits of ours.

A connection that does not finish a request's head in time is cut, and so is one too many; a head is
at most so long (h11 refuses the rest unread). A socket's messages are small until the doors raise
the limit, so 32 MiB are never buffered for somebody who may not come in.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

from worldline.server.doors.gate import PULSE_EXTENSION, SIZE_EXTENSION

LINGER_S: Final = 2.0  # how long a peer that broke the protocol is still read, and not heard


class PatientHttp(H11Protocol):
    """HTTP, but the head of a request must come within `timeout_keep_alive` seconds."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Count the connection, and start waiting for its first head."""
        super().connection_made(transport)
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) > limit:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what came; between two requests the next head is waited for."""
        super().handle_events()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._wait_for_head()
        else:
            self._stop_waiting()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            limit = self.timeout_keep_alive
            self._head_timer = self.loop.call_later(limit, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket with two extensions of the scope for the app.

    It may raise the largest message (`SIZE_EXTENSION`) and do without pings of the protocol's own
    (`PULSE_EXTENSION`), which cut a peer that does not read.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn.debug = False  # it would log heads, and with them tokens

    def handle_connect(self, event: Request) -> None:
        """Offer the extensions to the app, which has not run yet."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][SIZE_EXTENSION] = self._set_max_message  # pyright: ignore
            self.scope["extensions"][PULSE_EXTENSION] = self._skip_pings  # pyright: ignore

    def handle_parser_exception(self) -> None:
        """Say why, and throw away what still comes, until the peer closes or `LINGER_S` are over.

        Closed with bytes unread, a connection is reset, and the peer may never see the reason.
        """
        if self.close_timer is not None:  # more of what is thrown away
            return
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():  # the peer need not wait for us to close
            self.transport.write_eof()
        self.close_sent = True
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _set_max_message(self, size: int) -> None:
        self.conn.max_message_size = size

    def _skip_pings(self) -> None:
        self.ping_interval = None
