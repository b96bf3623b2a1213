"""One connection: binary messages both ways until it is lost. Only this file knows websockets."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from worldline.core.clock import Clock, MonotonicClock
from worldline.core.live import SUBPROTOCOL

MAX_MESSAGE: Final = 64 * 2**20  # a raw frame of the largest size that `enter` allows is below
ABNORMAL: Final = 1006
CLOSE_S: Final = 2.0


class LineLost(Exception):
    """The connection is over, or never began; `code` as in WebSocket close frames."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{reason or 'connection lost'} ({code})")


class Line(Protocol):
    """A connection."""

    async def send(self, data: bytes) -> None:
        """Write one message. Raises: LineLost."""
        ...

    async def receive(self) -> bytes:
        """The next message. Raises: LineLost."""
        ...

    async def close(self) -> None:
        """End it; a waiting `receive` raises LineLost."""
        ...


class Dial(Protocol):
    """How connections are made; tests bring their own."""

    async def __call__(self, url: str, *, tls: ssl.SSLContext | None, timeout: float) -> Line:
        """A new connection. Raises: LineLost."""
        ...


class ClientClock(Clock, Protocol):
    """A clock that can be slept on."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""
        ...


class RealClock(MonotonicClock):
    """Real time on the running event loop."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


async def dial(url: str, *, tls: ssl.SSLContext | None, timeout: float) -> Line:
    """A WebSocket with our sub-protocol. Raises: LineLost."""
    proxy: Literal[True] | None = None if is_here(url) else True
    try:
        socket = await connect(
            url,
            ssl=tls if url.startswith("wss:") else None,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            open_timeout=timeout,
            ping_interval=None,  # the dialect has its own heartbeat
            max_size=MAX_MESSAGE,
            close_timeout=CLOSE_S,
            compression=None,
            proxy=proxy,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
        raise LineLost(ABNORMAL, f"{url} does not answer: {error}") from error
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close()
        raise LineLost(ABNORMAL, f"{url} does not speak {SUBPROTOCOL}")
    return SocketLine(socket)


class SocketLine:
    """Implements `Line`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Write one message. Raises: LineLost."""
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def receive(self) -> bytes:
        """The next message. Raises: LineLost."""
        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def close(self) -> None:
        """End it, also if the caller is cancelled meanwhile: half closed, nobody would end it."""
        closing = asyncio.create_task(self._socket.close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})
            raise


def _lost(error: ConnectionClosed) -> LineLost:
    close = error.rcvd
    return LineLost(close.code, close.reason) if close is not None else LineLost(ABNORMAL, "")


def is_here(url: str) -> bool:
    """Whether an address is this machine: no proxy is asked then."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
