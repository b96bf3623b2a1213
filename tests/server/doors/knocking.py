"""Somebody at the door: an app behind doors, called as the listener would call it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.fakes import LIMIT_S, FakeClock
from worldline.core.config import ServerConfig
from worldline.core.live import SUBPROTOCOL
from worldline.core.secret import Secret
from worldline.server.doors.clients import client_of
from worldline.server.doors.gate import doors
from worldline.server.doors.keys import Key, Keyring
from worldline.server.doors.policy import policy_of

VISITOR = "visitor-secret-0123456789"
BOSS = "boss-secret-0123456789abc"
LIVE = "/v1/worlds/live"
MAINLINE = "/v1/realtime_video/generate"
FAR = ("203.0.113.9", 4000)


def keyring() -> Keyring:
    """A visitor's key and an administrator's."""
    return Keyring([Key("ann", Secret(VISITOR)), Key("boss", Secret(BOSS), admin=True)])


class Behind(NamedTuple):
    """An app behind its doors, and what it saw."""

    app: Starlette
    clock: FakeClock
    refused: Counter[str]
    seen: list[dict[str, Any]]  # scopes that came through
    heard: list[Any]  # messages of sockets

    async def ask(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        """A request; `address` is where it comes from, `host` what it calls us."""
        address = more.pop("address", FAR)
        host = more.pop("host", "203.0.113.1:30000")
        transport = httpx.ASGITransport(app=self.app, client=address)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **more)


def behind(ring: Keyring | None = None, **settings: Any) -> Behind:
    """An app on an address that others can reach if there are keys, else on loopback."""
    host = "127.0.0.1" if ring is None else "0.0.0.0"
    config = ServerConfig(**{"host": host, **settings})
    clock, refused = FakeClock(), Counter[str]()
    seen: list[dict[str, Any]] = []
    heard: list[Any] = []

    async def page(request: Request) -> Response:
        seen.append(dict(request.scope))
        body = len(await request.body())
        return JSONResponse({"client": client_of(request.scope).name, "body": body})

    async def talk(socket: WebSocket) -> None:
        seen.append(dict(socket.scope))
        await socket.accept(SUBPROTOCOL if socket.scope["subprotocols"] else None)
        while (message := await socket.receive())["type"] == "websocket.receive":
            heard.append(message.get("bytes") or message.get("text"))
            name = client_of(socket.scope).name
            await socket.send_bytes(msgspec.msgpack.encode({"client": name}))
        heard.append(("left", message.get("code")))

    def count(code: str) -> None:
        refused[code] += 1

    rules = policy_of(config, ring or Keyring(), page=frozenset({"/", "/app.js"}))
    app = Starlette(
        routes=[
            WebSocketRoute("/{path:path}", talk),
            Route("/{path:path}", page, methods=["GET", "POST", "OPTIONS"]),
        ],
        middleware=[doors(rules, clock=clock, count=count)],
    )
    return Behind(app, clock, refused, seen, heard)


class Knock:
    """One WebSocket handshake and what follows."""

    def __init__(self, behind: Behind, path: str = LIVE, **given: Any) -> None:
        headers = {"host": "203.0.113.1:30000", **given.get("headers", {})}
        protocols: list[str] = given.get("protocols", [])
        if protocols:
            headers["sec-websocket-protocol"] = ", ".join(protocols)
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._to_app.put_nowait({"type": "websocket.connect"})
        self.max_message: list[int] = []
        extensions: dict[str, Any] = {"worldline.max_message_bytes": self.max_message.append}
        if given.get("http_response", True):
            extensions["websocket.http.response"] = {}
        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "ws",
            "query_string": given.get("query", b""),
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "subprotocols": protocols,
            "client": given.get("address", FAR),
            "server": ("203.0.113.1", 30000),
            "extensions": extensions,
        }
        self.task = asyncio.create_task(behind.app(scope, self._to_app.get, self._from_app.put))

    async def next(self) -> dict[str, Any]:
        """The next event from the app."""
        async with asyncio.timeout(LIMIT_S):
            return await self._from_app.get()

    async def message(self) -> dict[str, Any]:
        """The next message, decoded."""
        event = await self.next()
        assert event["type"] == "websocket.send", event
        return msgspec.msgpack.decode(event["bytes"])

    def send(self, message: Any) -> None:
        """Send a map as MessagePack, or bytes or text as they are."""
        if isinstance(message, str):
            self._to_app.put_nowait({"type": "websocket.receive", "text": message})
            return
        data = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    async def leave(self) -> None:
        """Go, and wait until the app has seen it."""
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        async with asyncio.timeout(LIMIT_S):
            await self.task
