"""The app on a fake engine and a fake clock, with its lifespan running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from starlette.applications import Starlette

from tests.fakes import LIMIT_S, FakeClock, FakeHandle
from tests.server.sockets import Socket
from worldline.core.config import ServerConfig
from worldline.server.app import create_app
from worldline.server.services import Services


class Rig:
    """One running app and everything a test may turn."""

    def __init__(self, app: Starlette, handle: FakeHandle, clock: FakeClock) -> None:
        self.app = app
        self.handle = handle
        self.clock = clock
        self.sockets: list[Socket] = []

    @property
    def services(self) -> Services:
        """What the app's sockets share."""
        return self.app.state.services

    async def warm(self) -> None:
        """Wait for the warm-up, and forget what it did."""
        await self.services.readiness.wait(self.clock, 1.0)
        self.handle.nothing_is_left()
        for kept in (
            self.handle.opened,
            self.handle.closed,
            self.handle.results,
            self.handle.requests,
        ):
            kept.clear()
        while self.handle.entered.acquire(blocking=False):
            pass

    async def connect(self) -> Socket:
        """A socket after its handshake."""
        socket = Socket(self.app)
        self.sockets.append(socket)
        await socket.accepted()
        return socket

    async def entered(self) -> None:
        """Wait until one more step has begun in the engine."""
        assert await asyncio.to_thread(self.handle.entered.acquire, timeout=LIMIT_S)


@asynccontextmanager
async def running(
    config: ServerConfig, handle: FakeHandle, *, tick: float = 0.0
) -> AsyncGenerator[Rig]:
    """An app with its lifespan; on leaving, every socket is dropped and nothing may be left."""
    clock = FakeClock(tick)
    app = create_app(config, handle, clock=clock)
    async with app.router.lifespan_context(app):
        rig = Rig(app, handle, clock)
        try:
            yield rig
        finally:
            if handle.holding:
                handle.allow(1000)
            for socket in rig.sockets:
                if not socket.task.done():
                    await socket.leave()
            assert not any(await app.state.census.count())
    handle.nothing_is_left()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if task.get_coro().__qualname__.startswith("Visitor")]  # pyright: ignore


Start = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    """Start an app: `rig = await start(handle=..., seats=...)`; warm unless told otherwise."""
    async with AsyncExitStack() as stack:

        async def begin(
            handle: FakeHandle | None = None,
            *,
            warm: bool = True,
            tick: float = 0.0,
            **settings: object,
        ) -> Rig:
            config = ServerConfig(**settings)  # pyright: ignore[reportArgumentType]
            rig = await stack.enter_async_context(
                running(config, handle or FakeHandle(), tick=tick)
            )
            if warm:
                await rig.warm()
            return rig

        yield begin


@pytest.fixture
async def rig(start: Start) -> Rig:
    """A warm app with two seats on a small fake world."""
    return await start()
