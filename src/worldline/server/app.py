"""The application as a value: routes, page and lifespan; knows no command line and no process.

`create_app` is given a loaded engine and does not end it: the caller that made the handle does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from worldline.core.config import ServerConfig
from worldline.runtime.handle import EngineHandle
from worldline.server.http import ROUTES
from worldline.server.page import page_routes
from worldline.server.realtime import realtime
from worldline.server.services import running
from worldline.server.waiting import AsyncClock, LoopClock


def create_app(
    config: ServerConfig, handle: EngineHandle, *, clock: AsyncClock | None = None
) -> Starlette:
    """The server for one loaded engine. `clock` replaces real time in tests."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with running(config, handle, clock or LoopClock()) as services:
            app.state.services = services
            yield

    return Starlette(routes=_routes(), lifespan=lifespan)


def _routes() -> list[BaseRoute]:
    return [
        *ROUTES,
        WebSocketRoute("/v1/realtime_video/generate", realtime),
        WebSocketRoute("/{path:path}", _refuse_socket),
        *page_routes(),
    ]


async def _refuse_socket(socket: WebSocket) -> None:
    await socket.close(1008, "no such endpoint")
