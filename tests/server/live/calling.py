"""A blocking client of `worldline.v1` on a real socket."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fakes import LIMIT_S
from tests.server.live.wire import ENDPOINT
from worldline.core.live import SUBPROTOCOL, ClientMessage, ServerMessage
from worldline.core.live.server import Bye, Failure

_DECODER = msgspec.msgpack.Decoder(ServerMessage)


class Client:
    """A blocking client on a real socket."""

    def __init__(self, connection: ClientConnection, *, limit_s: float = LIMIT_S) -> None:
        self.connection = connection
        self.limit_s = limit_s

    def say(self, message: ClientMessage) -> None:
        """Send."""
        self.connection.send(msgspec.msgpack.encode(message))

    def next(self) -> Any:
        """The next message."""
        data = self.connection.recv(timeout=self.limit_s)
        assert isinstance(data, bytes)
        return _DECODER.decode(data)

    def until(self, kind: type[Any]) -> Any:
        """The next message of a kind; no error may come before."""
        while True:
            message = self.next()
            if isinstance(message, kind):
                return message
            assert not isinstance(message, Failure | Bye), message

    def closed(self) -> int:
        """Read up to the close frame; its code."""
        with suppress(ConnectionClosed):
            while True:
                self.connection.recv(timeout=LIMIT_S)
        assert self.connection.close_code is not None
        return self.connection.close_code


@contextmanager
def open_socket(port: int) -> Generator[ClientConnection]:
    """A connection that offers our sub-protocol."""
    opening = connect(
        f"ws://127.0.0.1:{port}{ENDPOINT}",
        subprotocols=[SUBPROTOCOL],  # pyright: ignore[reportArgumentType]
        max_size=None,
        compression=None,
        max_queue=None,
    )
    with opening as connection:
        yield connection
