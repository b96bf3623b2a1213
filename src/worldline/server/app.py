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
from worldline.server.census import Census
from worldline.server.doors.gate import doors
from worldline.server.doors.keys import Keyring
from worldline.server.doors.policy import policy_of
from worldline.server.films import routes as films
from worldline.server.films.lot import filming
from worldline.server.films.store import FilmStore
from worldline.server.http import routes
from worldline.server.live import downloads
from worldline.server.live.host import MakeWorld
from worldline.server.live.house import House
from worldline.server.live.making import make_world
from worldline.server.live.socket import live
from worldline.server.page import page_paths, page_routes
from worldline.server.realtime import realtime
from worldline.server.services import running
from worldline.server.waiting import AsyncClock, LoopClock
from worldline.server.warmup import Revivals


def create_app(
    config: ServerConfig,
    handle: EngineHandle,
    *,
    clock: AsyncClock | None = None,
    keyring: Keyring | None = None,
    make: MakeWorld = make_world,
    revivals: Revivals | None = None,
    store: FilmStore | None = None,
) -> Starlette:
    """The server for one loaded engine. `clock` and `make` replace time and worlds in tests.

    `revivals` tells of every worker that replaces one which died. Who opened `store`, where films
    are kept, closes it. Raises: ConfigError when others can reach the address without keys.
    """
    clock = clock or LoopClock()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with running(config, handle, clock, revivals=revivals) as services:
            house = House(services, make)
            census = Census(services, house)
            app.state.services, app.state.house, app.state.census = services, house, census
            try:
                async with filming(services, store, census) as app.state.studio:
                    yield
            finally:
                await house.close()
                await census.close()

    def count(code: str) -> None:
        app.state.services.metrics.count_error(code)

    rules = policy_of(config, keyring or Keyring(), page=page_paths())
    app = Starlette(
        routes=_routes(config),
        lifespan=lifespan,
        middleware=[doors(rules, clock=clock, count=count)],
    )
    return app


def _routes(config: ServerConfig) -> list[BaseRoute]:
    return [
        *routes(config),
        *downloads.ROUTES,
        *films.ROUTES,
        WebSocketRoute("/v1/realtime_video/generate", realtime),
        WebSocketRoute("/v1/worlds/live", live),
        WebSocketRoute("/{path:path}", _refuse_socket),
        *page_routes(),
    ]


async def _refuse_socket(socket: WebSocket) -> None:
    await socket.close(1008, "no such endpoint")
