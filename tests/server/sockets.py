"""A WebSocket without a network: the app is called as the server would call it."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import msgspec
from PIL import Image
from starlette.applications import Starlette

from tests.fakes import LIMIT_S
from tests.server.old_client import Message, OldClient

ENDPOINT = "/v1/realtime_video/generate"


def picture(color: str = "teal", size: tuple[int, int] = (32, 24)) -> bytes:
    """A small PNG file."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def init(**fields: Any) -> dict[str, Any]:
    """A usable init; fields given as None are left out."""
    message = {"type": "init", "prompt": "a lake", "first_frame": picture(), "seed": 7, **fields}
    return {name: value for name, value in message.items() if value is not None}


def keys(*actions: str, event_id: int | None = None) -> dict[str, Any]:
    """A state event: these keys are held now."""
    transition = {"actions": list(actions), "client_ts_ms": 1_763_600_000_000.0}
    payload = {"mode": "state", "transitions": [transition]}
    return event("camera_actions", payload, event_id)


def event(kind: str, payload: Any, event_id: int | None = None) -> dict[str, Any]:
    """Any event."""
    message = {"type": "event", "kind": kind, "payload": payload}
    return message if event_id is None else {**message, "event_id": event_id}


class Socket:
    """The client's end. Everything received is decoded as the old client would."""

    def __init__(self, app: Starlette, path: str = ENDPOINT) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._client = OldClient()
        self._gone = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.wire: list[bytes] = []
        self._to_app.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "ws",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(app(scope, self._to_app.get, self._take))

    async def _take(self, message: Any) -> None:
        await self._flowing.wait()
        if self._gone:
            raise OSError("the peer is gone")
        self._from_app.put_nowait(message)

    async def accepted(self) -> None:
        """Wait for the handshake."""
        message = await self._receive()
        assert message["type"] == "websocket.accept", message

    def send(self, message: Any) -> None:
        """Send a map as MessagePack."""
        self.send_bytes(msgspec.msgpack.encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send any binary message."""
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    def send_text(self, text: str) -> None:
        """Send a text frame."""
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    async def next(self) -> Message:
        """The next thing the old client would see."""
        while True:
            message = await self._receive()
            assert message["type"] == "websocket.send", message
            data = bytes(message["bytes"])
            self.wire.append(data)
            seen = self._client.feed(data)
            if seen is not None:
                return seen

    async def _receive(self) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT_S):
            return await self._from_app.get()

    async def next_part(self) -> bytes:
        """The next binary message as it is."""
        message = await self._receive()
        return bytes(message["bytes"])

    def stall(self) -> None:
        """Stop reading: what the app sends from now on waits."""
        self._flowing.clear()

    async def chunk(self) -> list[Message]:
        """All messages of one chunk; the stats are the last."""
        messages: list[Message] = []
        while not messages or messages[-1].type != "chunk_stats":
            messages.append(await self.next())
            assert messages[-1].type != "error", messages[-1]
        return messages

    async def error(self) -> dict[str, Any]:
        """The next message, which is an error."""
        message = await self.next()
        assert message.type == "error", message
        return message.fields

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame, which is next; waits for the app to return."""
        message = await self._receive()
        assert message["type"] == "websocket.close", message
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        await self.ended()
        return message["code"], message["reason"]

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

    def unread(self) -> list[dict[str, Any]]:
        """What came and was not looked at, as it came."""
        found: list[dict[str, Any]] = []
        while not self._from_app.empty():
            found.append(self._from_app.get_nowait())
        return found

    @property
    def silent(self) -> bool:
        """Whether nothing is waiting to be read."""
        return self._from_app.empty()
