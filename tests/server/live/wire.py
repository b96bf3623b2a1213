"""The client's end of `/v1/worlds/live` without a network: typed messages in and out."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette

from tests.fakes import LIMIT_S
from tests.server.sockets import picture
from worldline.core.live import SUBPROTOCOL, ClientMessage, ServerMessage
from worldline.core.live.client import Enter, Hello, Rejoin, Watch
from worldline.core.live.server import Bye, Failure, Opened, Queued, Ready, Seat

ENDPOINT = "/v1/worlds/live"
_DECODER = msgspec.msgpack.Decoder(ServerMessage)
M = TypeVar("M")


def wish(**fields: Any) -> Enter:
    """A usable `enter`."""
    return Enter(**{"prompt": "a lake", "image": picture(), "seed": 7, **fields})


class LiveSocket:
    """One connection; `next` and `until` give what the server said, in order."""

    def __init__(
        self, app: Starlette, *, subprotocols: tuple[str, ...] = (SUBPROTOCOL,), host: str = "::1"
    ) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.seen: list[Any] = []
        self._to_app.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": ENDPOINT,
            "raw_path": ENDPOINT.encode(),
            "root_path": "",
            "scheme": "ws",
            "query_string": b"",
            "headers": [],
            "subprotocols": list(subprotocols),
            "client": (host, 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(app(scope, self._to_app.get, self._take))

    async def _take(self, message: Any) -> None:
        await self._flowing.wait()
        if self._gone:
            raise OSError("the peer is gone")
        self._from_app.put_nowait(message)

    async def accepted(self) -> str | None:
        """Wait for the handshake; the sub-protocol."""
        message = await self._receive()
        assert message["type"] == "websocket.accept", message
        return message["subprotocol"]

    def send(self, message: ClientMessage) -> None:
        """Say something."""
        self.send_bytes(msgspec.msgpack.encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send any binary message."""
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    def send_text(self, text: str) -> None:
        """Send a text frame."""
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    async def next(self) -> Any:
        """The next message."""
        message = await self._receive()
        assert message["type"] == "websocket.send", message
        self.seen.append(_DECODER.decode(message["bytes"]))
        return self.seen[-1]

    async def until(self, kind: type[M], **fields: Any) -> M:
        """Skip to the next message of a kind, with these values; an unexpected error fails."""
        while True:
            message = await self.next()
            if isinstance(message, kind) and all(
                getattr(message, name) == value for name, value in fields.items()
            ):
                return message
            assert not isinstance(message, Failure | Bye), message

    async def hello(self) -> Ready:
        """Greet, and be greeted."""
        await self.accepted()
        self.send(Hello())
        return await self.until(Ready)

    async def enter(self, **fields: Any) -> Seat:
        """Greet and enter a world for which there is a seat."""
        await self.hello()
        self.send(wish(**fields))
        return await self.until(Seat)

    async def walk(self, **fields: Any) -> Seat:
        """Enter, and wait until the world is open."""
        seat = await self.enter(**fields)
        await self.until(Opened)
        return seat

    async def queue(self, **fields: Any) -> Queued:
        """Greet and enter a world for which there is no seat."""
        await self.hello()
        self.send(wish(**fields))
        return await self.until(Queued)

    async def rejoin(self, token: Any) -> Seat:
        """Greet and come back."""
        await self.hello()
        self.send(Rejoin(token=token))
        return await self.until(Seat)

    async def watch(self, world: str) -> Opened:
        """Greet and see somebody else's world."""
        await self.hello()
        self.send(Watch(world=world))
        return await self.until(Opened)

    async def closed(self) -> tuple[Any, int]:
        """Skip to the end: the last message, and the close code. Waits for the app to return."""
        last: Any = None
        while (message := await self._receive())["type"] != "websocket.close":
            last = _DECODER.decode(message["bytes"])
            self.seen.append(last)
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        await self.ended()
        return last, message["code"]

    async def leave(self) -> None:
        """Drop the connection, and wait until the app has cleaned up."""
        self.drop()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the app has cleaned up."""
        async with asyncio.timeout(LIMIT_S):
            await self.task

    def drop(self) -> None:
        """Drop the connection."""
        self._gone = True
        self._flowing.set()
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def stall(self) -> None:
        """Stop reading: what the app sends from now on waits."""
        self._flowing.clear()

    def flow(self) -> None:
        """Read again."""
        self._flowing.set()

    def unread(self) -> list[dict[str, Any]]:
        """What came and was not looked at, as it came."""
        found: list[dict[str, Any]] = []
        while not self._from_app.empty():
            found.append(self._from_app.get_nowait())
        return found

    def skim(self) -> None:
        """Read what is there, without waiting."""
        message = self._from_app.get_nowait()
        if message["type"] == "websocket.send":
            self.seen.append(_DECODER.decode(message["bytes"]))

    @property
    def silent(self) -> bool:
        """Whether nothing is waiting to be read."""
        return self._from_app.empty()

    async def _receive(self) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT_S):
            return await self._from_app.get()
