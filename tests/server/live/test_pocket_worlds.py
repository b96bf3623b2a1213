"""Live worlds on the packaged weights in a worker: walked together, parked and begun anew, each
gives the frames it gives alone."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import worldline
from tests.fakes import FakeClock
from tests.server.live.audience import FakeAudience
from worldline.core.config import ServerConfig
from worldline.core.live.client import Enter, Keys, Pointer
from worldline.core.live.server import Chunk
from worldline.core.motion import Motion
from worldline.models.pocket import params as pocket
from worldline.runtime.handle import OnFrames, StepResult, WorkerHandle
from worldline.runtime.protocol import StepRequest, WorkerSettings
from worldline.server.live.world import LiveWorld
from worldline.server.services import Services, running
from worldline.server.waiting import LoopClock

pytestmark = pytest.mark.anyio

GALLERY = Path(pocket.__file__).with_name("gallery")
CHUNKS = 6


class Recorded(WorkerHandle):
    """A worker, and the motions of every chunk it has made."""

    motions: defaultdict[str, list[tuple[Motion, ...]]]
    aborted = 0

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """Make it, and write it down if it was made."""
        result = super().step(request, on_frames=on_frames)
        self.motions[request.session_id].append(request.motions or ())
        return result

    def abort(self, session_id: str) -> bool:
        """Count those that came in time to be heard."""
        heard = super().abort(session_id)
        self.aborted += heard
        return heard


@pytest.fixture
def worker() -> Generator[Recorded]:
    handle = Recorded(WorkerSettings(model="pocket", threads=1))
    handle.motions = defaultdict(list)
    handle.wait_until_loaded()
    yield handle
    handle.shutdown()


def start_of(visitor: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """A start world of the gallery, and its picture."""
    start = json.loads((GALLERY / "gallery.json").read_text())[visitor]
    return start, np.asarray(Image.open(GALLERY / start["file"]).convert("RGB"))


def alone(visitor: int, motions: list[tuple[Motion, ...]]) -> NDArray[np.uint8]:
    """The frames of the same walk in this process, with nobody beside it."""
    start, picture = start_of(visitor)
    loaded = worldline.load("pocket", threads=1)
    with loaded.start(picture, start["prompt"], start["seed"]) as session:
        return np.concatenate([session.step(list(chunk)).frames for chunk in motions])


def a_world(services: Services, visitor: int) -> tuple[LiveWorld, FakeAudience]:
    start, picture = start_of(visitor)
    wish = Enter(prompt=start["prompt"], image=b"", seed=start["seed"], max_chunks=CHUNKS)
    audience = FakeAudience(FakeClock())
    world = LiveWorld(
        services,
        f"visitor-{visitor}",
        wish,
        picture,
        device=services.device,
        broadcast=audience,
    )
    return world, audience


async def shown(audience: FakeAudience, chunks: int) -> None:
    while len(audience.all(Chunk)) < chunks:
        await asyncio.sleep(0.005)


async def first_hand(world: LiveWorld, audience: FakeAudience) -> None:
    """Walks, and is parked and brought back half-way."""
    world.take(Keys(id=1, held=("w",)))
    await shown(audience, 2)
    world.take(Pointer(id=2, yaw=11.0, pitch=-3.0))
    world.park()
    while world.state != "parked":
        await asyncio.sleep(0.005)
    world.take(Keys(id=3, held=("w", "d")))
    world.resume()


async def second_hand(world: LiveWorld, audience: FakeAudience) -> None:
    """Changes its mind all the time, so that chunks are begun anew."""
    for id in range(1, 1000):
        if len(audience.all(Chunk)) >= CHUNKS - 1:
            return
        world.take(Keys(id=id, held=("j",) if id % 2 else ("s", "k")))
        await asyncio.sleep(0.03)


@pytest.mark.timeout(300)
async def test_worlds_beside_each_other_give_the_frames_they_give_alone(worker: Recorded) -> None:
    config = ServerConfig(restart_s=1.0, warmup_chunks=2)
    async with running(config, worker, LoopClock()) as services:
        await services.readiness.decided()
        worlds = [a_world(services, visitor) for visitor in (0, 1)]
        for world, _ in worlds:
            await world.open()
        await asyncio.gather(
            *(world.run() for world, _ in worlds),
            first_hand(*worlds[0]),
            second_hand(*worlds[1]),
        )
        for world, _ in worlds:
            await world.close()
        assert worker.counts().sessions == 0
        assert worker.counts().slots == 0
    assert worker.aborted > 0
    for visitor, (world, audience) in enumerate(worlds):
        motions = worker.motions[world.id]
        assert len(motions) == CHUNKS
        assert any(motion.z or motion.yaw for chunk in motions for motion in chunk)
        assert (audience.pixels() == alone(visitor, motions)).all()
