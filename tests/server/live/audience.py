"""An audience that keeps what it is shown and told, and the services of a world without an app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tests.fakes import LIMIT_S, FakeClock, FakeHandle, settle
from worldline.core.config import ServerConfig
from worldline.core.live.client import Enter
from worldline.core.live.server import ServerMessage, StateChange
from worldline.core.motion import Pose
from worldline.server.live.frames import ChunkFrames, Sent
from worldline.server.live.world import LiveWorld
from worldline.server.services import Services, running

M = TypeVar("M")
PICTURE = np.zeros((6, 8, 3), np.uint8)


class Seen:
    """One latent frame as it was shown; the pixels are a copy."""

    def __init__(self, pictures: ChunkFrames) -> None:
        self.chunk, self.latent_frame = pictures.chunk, pictures.latent_frame
        self.number, self.input = pictures.number, pictures.input
        self.view: Pose = pictures.view
        self.first, self.last = pictures.first, pictures.last
        self.pixels: NDArray[np.uint8] = pictures.frames.copy()


class FakeAudience:
    """Shows at once, or takes `encode_s` of the clock; fails with `broken`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.encode_s = 0.0
        self.broken: Exception | None = None
        self.seen: list[Seen] = []
        self.told: list[ServerMessage] = []
        self.held: list[ServerMessage] = []
        self.shares: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._news = asyncio.Condition()

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Keep a copy, once the gate is open."""
        try:
            await self.gate.wait()
            if self.broken is not None:
                raise self.broken
            if self.encode_s:
                await self.clock.sleep(self.encode_s)
            self.seen.append(Seen(pictures))
            return Sent(0.0, self.encode_s, pictures.frames.nbytes)
        finally:
            pictures.release()
            async with self._news:
                self._news.notify_all()

    def tell(self, message: ServerMessage) -> None:
        """Keep it."""
        self.told.append(message)

    def tell_holder(self, message: ServerMessage) -> None:
        """Keep it."""
        self.held.append(message)

    def quality(self, share: float) -> None:
        """Keep it."""
        self.shares.append(share)

    def all(self, kind: type[M]) -> list[M]:
        """What the holder was told of one kind."""
        return [message for message in self.held if isinstance(message, kind)]

    @property
    def states(self) -> list[str]:
        """The world's states, in order."""
        return [message.state for message in self.told if isinstance(message, StateChange)]

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait, in real time, until the world has come so far."""
        async with asyncio.timeout(LIMIT_S):
            while not ready():
                await asyncio.sleep(0.001)
        await settle()


@asynccontextmanager
async def serving(
    handle: FakeHandle, clock: FakeClock, config: ServerConfig | None = None
) -> AsyncGenerator[Services]:
    """Services after their warm-up, on a fake engine; asserts that the engine holds nothing then."""
    async with running(config or ServerConfig(), handle, clock) as services:
        await services.readiness.wait(clock, 1.0)
        handle.requests.clear()
        yield services
    handle.nothing_is_left()


def enter(**changes: object) -> Enter:
    """A wish for a world."""
    return Enter(**({"prompt": "a lake", "image": b"picture"} | changes))  # pyright: ignore


def a_world(
    services: Services, audience: FakeAudience, wish: Enter | None = None, *, name: str = "one"
) -> LiveWorld:
    """A world that nobody has opened."""
    return LiveWorld(
        services,
        name,
        wish or enter(),
        PICTURE,
        device=services.device,
        broadcast=audience,
    )


@asynccontextmanager
async def walking(world: LiveWorld) -> AsyncGenerator[asyncio.Task[None]]:
    """An open world and the task it runs in; closed at the end."""
    await world.open()
    task = asyncio.create_task(world.run())
    try:
        yield task
    finally:
        await world.close("over")
        await asyncio.wait({task})
