"""Our own wire's part of the door: a socket without a token yet is heard for one message.

That message must be `hello` with a token that opens something. Until then the socket may send only
little (the door sets its limit), and the endpoint behind has heard nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from starlette.types import Message, Receive, Send

from worldline.core.errors import AccessError, UnauthorizedError
from worldline.core.live.client import Hello
from worldline.server.doors.clients import Client
from worldline.server.doors.keys import Keyring
from worldline.server.doors.wire import Refusal, close_code, say_and_close

_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_MALFORMED: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class HelloGuard:
    """Stands between a socket and its endpoint; `receive` and `send` are the endpoint's."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        keyring: Keyring,
        admit: Callable[[Client], None],
        refused: Callable[[AccessError], None],
    ) -> None:
        self._receive, self._send = receive, send
        self._keyring = keyring
        self._admit, self._refused = admit, refused
        self._admitted = False
        self._over = False

    async def receive(self) -> Message:
        """The next message; after a refusal the peer has left."""
        message = await self._receive()
        if self._admitted or message["type"] != "websocket.receive":
            return message
        try:
            hello = _read(message)
            self._admit(self._keyring.who(hello.token or ""))
        except AccessError as error:
            self._refused(error)
            await say_and_close(self._send, Refusal(error))
            self._over = True
            return {"type": "websocket.disconnect", "code": close_code(error)}
        self._admitted = True
        return {**message, "bytes": msgspec.msgpack.encode(_without_token(hello))}

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
