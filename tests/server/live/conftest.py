"""The app on fake worlds and a fake clock, with its lifespan running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.fakes import FakeClock, FakeHandle, settle
from tests.server.live.wire import LiveSocket
from tests.server.live.worlds import Worlds
from worldline.core.config import ServerConfig
from worldline.server.app import create_app
from worldline.server.live.house import House
from worldline.server.services import Services
from worldline.server.warmup import Revivals


class Rig:
    """One running app and everything a test may turn."""

    def __init__(
        self, app: Starlette, worlds: Worlds, *, clock: FakeClock, revivals: Revivals
    ) -> None:
        self.app = app
        self.revivals = revivals
        self.worlds = worlds
        self.clock = clock
        self.sockets: list[LiveSocket] = []

    @property
    def services(self) -> Services:
        """What the app's sockets share."""
        return self.app.state.services

    @property
    def house(self) -> House:
        """All live worlds."""
        return self.app.state.house

    @property
    def lent(self) -> int:
        """How many seats may be lent at most."""
        return self.services.config.lend_seats

    def connect(self, **how: Any) -> LiveSocket:
        """A new connection."""
        socket = LiveSocket(self.app, **how)
        self.sockets.append(socket)
        return socket

    async def empty(self) -> None:
        """Wait until every world has ended; nothing may be left of any."""
        while self.house.rooms:
            await settle()
        self.worlds.nothing_is_left()
        assert self.services.seats.taken == 0
        assert self.house.waiting == 0


def ours() -> list[str]:
    """What the server's tasks that exist now run."""
    codes = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    return [code.co_qualname for code in codes if code and "/worldline/" in code.co_filename]


@asynccontextmanager
async def running(config: ServerConfig, *, handle: FakeHandle | None = None) -> AsyncGenerator[Rig]:
    """An app with its lifespan; on leaving, every socket is dropped and nothing may be left."""
    clock, worlds, revivals = FakeClock(), Worlds(), Revivals()
    engine = handle or FakeHandle()
    app = create_app(config, engine, clock=clock, make=worlds.make, revivals=revivals)
    async with app.router.lifespan_context(app):
        rig = Rig(app, worlds, clock=clock, revivals=revivals)
        try:
            yield rig
        finally:
            for socket in rig.sockets:
                if not socket.task.done():
                    await socket.leave()
            assert not any(await app.state.census.count())
            for world in worlds.made:
                world.may_close.set()
    worlds.nothing_is_left()
    await settle()
    assert ours() == []
    assert clock.sleeping == []


Start = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    """Start an app: `rig = await start(seats=...)`; warm unless told otherwise."""
    async with AsyncExitStack() as stack:

        async def begin(
            handle: FakeHandle | None = None, *, warm: bool = True, **settings: object
        ) -> Rig:
            config = ServerConfig(**settings)  # pyright: ignore[reportArgumentType]
            rig = await stack.enter_async_context(running(config, handle=handle))
            if warm:
                await rig.services.readiness.wait(rig.clock, 1.0)
            return rig

        yield begin


@pytest.fixture
async def rig(start: Start) -> Rig:
    """A warm app with two seats."""
    return await start()
