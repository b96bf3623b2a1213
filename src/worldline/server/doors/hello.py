"""Our own wire's part of the door: a socket without a token yet is heard for one message.

That message must be `hello` with a token that opens something, and must come soon. Until then the
socket may send only little (the door sets its limit), and the endpoint behind has heard nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from starlette.types import Message, Receive, Send

from worldline.core.errors import AccessError, LateError, UnauthorizedError, WorldlineError
from worldline.core.live.client import Hello
from worldline.server.doors.clients import Client
from worldline.server.doors.keys import Keyring
from worldline.server.doors.wire import Refusal, close_code, say_and_close
from worldline.server.waiting import AsyncClock, within

_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_LEFT: Final = {"type": "websocket.disconnect", "code": 1006}
_MALFORMED: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class HelloTerms(NamedTuple):
    """What a first message must show, and within how many seconds of the clock."""

    keyring: Keyring
    limit_s: float
    clock: AsyncClock


class HelloGuard:
    """Stands between a socket and its endpoint; `receive` and `send` are the endpoint's."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        terms: HelloTerms,
        admit: Callable[[Client], None],
        refused: Callable[[WorldlineError], None],
    ) -> None:
        self._receive, self._send = receive, send
        self._terms = terms
        self._admit, self._refused = admit, refused
        self._connected = self._admitted = self._over = False

    async def receive(self) -> Message:
        """The next message; after a refusal the peer has left."""
        if self._admitted or not self._connected:
            self._connected = True  # the first is the handshake itself
            return await self._receive()
        if self._over:
            return _LEFT
        try:
            message = await self._first()
            if message["type"] != "websocket.receive":
                return message
            hello = _read(message)
            self._admit(self._terms.keyring.who(hello.token or ""))
        except (AccessError, LateError) as error:
            self._refused(error)
            await say_and_close(self._send, Refusal(error))
            self._over = True
            return {**_LEFT, "code": close_code(error)}
        self._admitted = True
        return {**message, "bytes": msgspec.msgpack.encode(_without_token(hello))}

    async def _first(self) -> Message:
        limit_s = self._terms.limit_s
        try:
            return await within(self._terms.clock, limit_s, self._next())
        except TimeoutError:
            raise LateError("no token came", expected=f"hello within {limit_s:g} s") from None

    async def _next(self) -> Message:
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Write, or fail as on a socket whose peer is gone."""
        if self._over:
            raise OSError("the socket was refused")
        await self._send(message)


def _read(message: Message) -> Hello:
    data: bytes | None = message.get("bytes")
    try:
        if data is not None:
            return _HELLO.decode(data)
    except _MALFORMED:
        pass
    raise UnauthorizedError(
        "the first message must show a token", expected="hello with token, or bearer.TOKEN"
    )


def _without_token(hello: Hello) -> Hello:
    return msgspec.structs.replace(hello, token=None)
