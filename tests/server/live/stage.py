"""A broadcast on a fake clock, a world that shows ramps, viewers whose reading can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import FakeClock, FakeTransport
from worldline.core.config import ServerConfig
from worldline.core.live import ServerMessage
from worldline.core.live.server import Frame, Opened, RigSpeed
from worldline.core.live.shared import Format
from worldline.core.motion import Pose
from worldline.media import h264
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.frames import ChunkFrames, Sent
from worldline.server.live.viewer import Viewer
from worldline.server.metrics import Metrics
from worldline.server.outbox import Outbox
from worldline.server.waiting import stop

needs_h264 = pytest.mark.skipif(not h264.available(), reason="H.264 needs the extra `video`")

FPS, LATENTS, PICTURES = 16, 3, 4
LATENT_S = PICTURES / FPS
CHUNK_S = LATENTS * LATENT_S
HEIGHT, WIDTH = 48, 64
HERE = Pose((1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 1.5, -2.0)
DECODER = msgspec.msgpack.Decoder(ServerMessage)


def opened(**changes: object) -> Opened:
    known = Opened(
        width=WIDTH, height=HEIGHT, fps=FPS, chunk=LATENTS, latent_frames=PICTURES, window=9,
        sink=2, steps=4, seed=1, prompt="x", intrinsics=(1.0, 1.0, 1.0, 1.0), first_frame=0,
        rig=RigSpeed(move=0.05, yaw_deg=6, pitch_deg=4, pitch_limit_deg=85), controls=True,
        state="live",
    )  # fmt: skip
    return msgspec.structs.replace(known, **changes)


class Eyes:
    """A viewer with a fake socket, whose reading can be stopped."""

    def __init__(self, stage: Stage, name: str, *, holder: bool = False) -> None:
        self.transport = FakeTransport()
        self.outbox = Outbox(self.transport, stage.clock)
        self.viewer = Viewer(self.outbox, stage.clock, id=name)
        self.viewer.holder = holder
        self.tasks = [asyncio.create_task(self.outbox.run())]
        self.running = asyncio.create_task(self.viewer.run())

    def read(self, on: bool) -> None:
        if on:
            self.transport.open.set()
        else:
            self.transport.open.clear()

    @property
    def messages(self) -> list[ServerMessage]:
        return [DECODER.decode(data) for data in self.transport.sent]

    @property
    def frames(self) -> list[Frame]:
        return [message for message in self.messages if isinstance(message, Frame)]


class Stage:
    """A broadcast, its clock, and a world that shows one latent frame after the other."""

    def __init__(self, pool: ThreadPoolExecutor, **config: object) -> None:
        self.clock = FakeClock()
        settings = msgspec.structs.replace(ServerConfig(), **config)
        self.metrics = Metrics()
        self.broadcast = Broadcast(
            "w", settings, clock=self.clock, encoders=pool, metrics=self.metrics
        )
        self.broadcast.opened(opened())
        self.number = 0
        self.latents = 0
        self.released = 0
        self.pose = HERE
        self.latent_s = LATENT_S
        self.eyes: list[Eyes] = []

    def slow_down(self, times: int) -> None:
        """The same pictures, less often: minutes pass in fewer of them."""
        self.broadcast.opened(opened(fps=FPS // times))
        self.latent_s = times * LATENT_S

    def watch(self, name: str, format: Format = "h264", *, holder: bool = False) -> Eyes:
        eyes = Eyes(self, name, holder=holder)
        self.eyes.append(eyes)
        self.broadcast.attach(eyes.viewer, format)
        return eyes

    def pixels(self) -> NDArray[np.uint8]:
        """The pictures of the coming latent frame: a ramp that moves."""
        ramp = np.arange(WIDTH, dtype=np.uint8) * 3
        rows = [np.roll(ramp, 2 * (self.number + i)) for i in range(PICTURES)]
        return np.stack([np.broadcast_to(r[None, :, None], (HEIGHT, WIDTH, 3)) for r in rows])

    def _released(self) -> None:
        self.released += 1

    async def latent(self) -> None:
        """Show one, then let its time pass and everybody write."""
        async with asyncio.timeout(20):
            await self.show()
        await self.pass_time(self.latent_s)

    async def show(self) -> Sent:
        """Show one latent frame."""
        at = self.latents % LATENTS
        pictures = ChunkFrames(
            chunk=self.latents // LATENTS, latent_frame=at, number=self.number,
            frames=self.pixels(), input=7, view=self.pose, first=at == 0,
            last=at == LATENTS - 1, release=self._released,
        )  # fmt: skip
        sent = await self.broadcast.show(pictures)
        self.latents += 1
        self.number += PICTURES
        return sent

    async def pass_time(self, seconds: float) -> None:
        await self.quiet()
        await self.clock.advance(seconds)
        await self.quiet()

    async def quiet(self) -> None:
        """Until everybody who reads has everything, stills that threads make included."""
        async with asyncio.timeout(20):
            await self.broadcast.settle()
        for eyes in self.eyes:
            if eyes.transport.open.is_set() and not eyes.running.done():
                async with asyncio.timeout(20):
                    await eyes.viewer.settle()


@asynccontextmanager
async def staged(kind: type[Stage] | None = None, **config: object) -> AsyncGenerator[Stage]:
    with ThreadPoolExecutor(2) as pool:
        stage = (kind or Stage)(pool, **config)
        yield stage
        await stage.broadcast.close()
        for eyes in stage.eyes:
            await stop(*eyes.tasks, eyes.running)
