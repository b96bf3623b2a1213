"""An audience that keeps what it is shown and told, and a world on a fake engine for it."""

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
from worldline.core.live.server import Applied, ServerMessage, StateChange
from worldline.core.motion import Motion, Pose
from worldline.server.live.beginning import Beginning
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
    """Shows at once, or in `encode_s` of the clock, or at the open gate; fails with `broken`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.encode_s = 0.0
        self.broken: Exception | None = None
        self.log: list[Seen | ServerMessage] = []  # what was shown and told, in order
        self.shares: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Keep a copy, once the gate is open."""
        try:
            await self.gate.wait()
            if self.broken is not None:
                raise self.broken
            if self.encode_s:
                await self.clock.sleep(self.encode_s)
            self.log.append(Seen(pictures))
            return Sent(0.0, self.encode_s, pictures.frames.nbytes)
        finally:
            pictures.release()

    def tell(self, message: ServerMessage) -> None:
        """Keep it."""
        self.log.append(message)

    def tell_holder(self, message: ServerMessage) -> None:
        """Keep it."""
        self.log.append(message)

    def quality(self, share: float) -> None:
        """Keep it."""
        self.shares.append(share)

    def all(self, kind: type[M]) -> list[M]:
        """What was shown or told of one kind."""
        return [entry for entry in self.log if isinstance(entry, kind)]

    @property
    def seen(self) -> list[Seen]:
        """Every latent frame that was shown."""
        return self.all(Seen)

    @property
    def states(self) -> list[str]:
        """The world's states, in order."""
        return [message.state for message in self.all(StateChange)]

    @property
    def applied(self) -> list[tuple[int, int, int]]:
        """Second receipts: id, chunk, latent frame."""
        return [(m.id, m.chunk, m.latent_frame) for m in self.all(Applied)]

    def pixels(self) -> NDArray[np.uint8]:
        """All pictures, one after another, `F H W 3`."""
        return np.concatenate([seen.pixels for seen in self.seen])


class Stage:
    """A fake engine, a fake clock, and whatever worlds a test makes."""

    def __init__(self, services: Services, handle: FakeHandle, clock: FakeClock) -> None:
        self.services = services
        self.handle = handle
        self.clock = clock

    def world(
        self, name: str = "one", *, beginning: Beginning | None = None, **wish: object
    ) -> tuple[LiveWorld, FakeAudience]:
        """A world that nobody has opened."""
        audience = FakeAudience(self.clock)
        world = LiveWorld(
            self.services,
            name,
            Enter(**({"prompt": "a lake", "image": b"picture"} | wish)),  # pyright: ignore
            PICTURE,
            device=self.services.device,
            broadcast=audience,
            beginning=beginning or Beginning(saves=self.services.saves),
        )
        return world, audience

    @asynccontextmanager
    async def walking(
        self, name: str = "one", *, beginning: Beginning | None = None, **wish: object
    ) -> AsyncGenerator[tuple[LiveWorld, FakeAudience]]:
        """A world that runs; closed at the end, whatever its `run` raised."""
        world, audience = self.world(name, beginning=beginning, **wish)
        await world.open()
        task = asyncio.create_task(world.run())
        try:
            yield world, audience
        finally:
            if self.handle.holding:
                self.handle.allow(1000)
            await world.close("over")
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait, in real time, until threads have come so far; then let every task run."""
        async with asyncio.timeout(LIMIT_S):
            while not ready():
                await asyncio.sleep(0.001)
        await settle()

    async def chunks(self, count: int, name: str = "one") -> None:
        """Let time pass until so many chunks of a world were made."""
        await self.passing(lambda: len(self.walked(name)) >= count)

    async def begun(self, count: int) -> None:
        """Let time pass until so many steps run or have run, with the engine on hold."""
        await self.passing(lambda: len(self.handle.requests) + self.handle.running >= count)

    async def passing(self, ready: Callable[[], bool]) -> None:
        """Let time pass until the worlds have come so far; it stands still during steps."""
        async with asyncio.timeout(LIMIT_S):
            while not ready():
                if self.services.device.user is None:
                    await self.clock.advance(0.05)
                await asyncio.sleep(0.001)
        await settle()

    async def entered(self) -> None:
        """Wait until one more step has begun; only for tests that wait for each of them."""
        assert await asyncio.to_thread(self.handle.entered.acquire, timeout=LIMIT_S)
        await settle()

    def walked(self, name: str = "one") -> list[tuple[Motion, ...]]:
        """The motions of every chunk that was made of a world."""
        requests = self.handle.requests
        return [request.motions or () for request in requests if request.session_id == name]


@asynccontextmanager
async def a_stage(
    config: ServerConfig | None = None, handle: FakeHandle | None = None
) -> AsyncGenerator[Stage]:
    """A fake engine after its warm-up; asserts at the end that it holds nothing."""
    handle, clock = handle or FakeHandle(), FakeClock()
    async with running(config or ServerConfig(), handle, clock) as services:
        await services.readiness.wait(clock, 1.0)
        handle.requests.clear()
        while handle.entered.acquire(blocking=False):
            pass
        yield Stage(services, handle, clock)
        assert clock.sleeping == []
    handle.nothing_is_left()
