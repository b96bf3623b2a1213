"""Several worlds of one server, each walked by a client of the Python SDK, all on one event loop.

Per world: frames per second as they arrive, stalls of an eye that would watch them, and the time
from pressing a key to the first frame that shows it. Over all: fairness by Jain's index, which is 1
when every world gets the same and 1/N when one gets everything.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from worldline.bench.latency import Spread, spread
from worldline.bench.picture import Bar, Lines, Stacked
from worldline.bench.start import picture_file
from worldline.client import AsyncClient, AsyncWorld, Picture, Receipt, WorldOptions
from worldline.core.actions import ACTIONS
from worldline.core.errors import ProtocolError
from worldline.core.live.shared import Format

REST_S: Final = (0.3, 1.5)
HOLD_S: Final = (0.1, 0.5)
SETTLE_CHUNKS: Final = 2  # before anything is counted


class WorldFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one world. Milliseconds; `input` is from the press to its first frame, here."""

    fps: float
    frames: int
    longest_gap: float
    stalls: int
    input: Spread
    real_time_factor: float


class ServedFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All worlds of one run; `input` is that of all presses together."""

    model: str
    size: str
    format: str
    video_fps: int
    seconds: float
    worlds: tuple[WorldFigures, ...]
    fairness: float
    input: Spread


def measure_served(
    client: AsyncClient,
    worlds: int,
    seconds: float,
    *,
    format: Format | None = None,
    greedy: bool = False,
    on_time: Callable[[float], None] = lambda s: None,
) -> ServedFigures:
    """Walk `worlds` worlds at once. Raises: RefusedError, ConnectionLostError, ProtocolError."""
    return asyncio.run(
        _measure(client, worlds, seconds, format=format, greedy=greedy, on_time=on_time)
    )


async def _measure(
    client: AsyncClient,
    worlds: int,
    seconds: float,
    *,
    format: Format | None,
    greedy: bool,
    on_time: Callable[[float], None],
) -> ServedFigures:
    made = [
        client.world(
            picture_file(),
            "a place to measure",
            options=WorldOptions(seed=seed, format=format),
            realtime=not greedy,
        )
        for seed in range(worlds)
    ]
    walkers = [_Walker(world, seed) for seed, world in enumerate(made)]
    try:
        await asyncio.gather(*(world.open() for world in made))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(walker.run()) for walker in walkers]
            await asyncio.gather(*(walker.settled.wait() for walker in walkers))
            for second in range(round(seconds)):
                await asyncio.sleep(1.0)
                on_time(second + 1.0)
            for task in tasks:
                task.cancel()
    finally:
        await asyncio.gather(*(world.leave() for world in made))
    return figures_of(walkers, seconds)


class _Walker:
    """Reads one world's frames and presses keys at random phases."""

    def __init__(self, world: AsyncWorld, seed: int) -> None:
        self.world = world
        self.settled = asyncio.Event()
        self.arrivals: list[float] = []  # ms
        self.format = ""
        self.inputs: list[float] = []
        self.factors: list[float] = []
        self.stalls = 0
        self._chance = random.Random(seed)
        self._open: list[Receipt] = []

    async def run(self) -> None:
        """Until it is cancelled. Raises: ProtocolError when the world ends."""
        first: int | None = None
        opened = self.world.opened
        settled = SETTLE_CHUNKS * opened.chunk * opened.latent_frames
        async with asyncio.TaskGroup() as group:
            keys = group.create_task(self._press())
            async for picture in self.world.frames():
                first = picture.number if first is None else first
                if picture.number - first >= settled:
                    self.settled.set()
                    self._count(picture)
            keys.cancel()
        raise ProtocolError("a world ended while it was measured")

    def _count(self, picture: Picture) -> None:
        self.arrivals.append(picture.received_ms)
        self.format = picture.format
        if self.world.stats is not None:
            self.factors.append(self.world.stats.real_time_factor)
        self.stalls = self.world.stalls
        for receipt in [r for r in self._open if r.id <= picture.input]:
            self._open.remove(receipt)
            self.inputs.append(picture.received_ms - receipt.at_ms)

    async def _press(self) -> None:
        await self.settled.wait()
        while True:
            key = self._chance.choice(ACTIONS)
            self._open.append(await self.world.press(key))
            await asyncio.sleep(self._chance.uniform(*HOLD_S))
            await self.world.release(key)
            await asyncio.sleep(self._chance.uniform(*REST_S))


def figures_of(walkers: Sequence[_Walker], seconds: float) -> ServedFigures:
    """What the walks say. Raises: ProtocolError when a world showed nothing."""
    opened, ready = walkers[0].world.opened, walkers[0].world.ready
    worlds = tuple(_world_figures(walker) for walker in walkers)
    return ServedFigures(
        model=ready.model,
        size=f"{opened.width}x{opened.height}",
        format=walkers[0].format,
        video_fps=opened.fps,
        seconds=seconds,
        worlds=worlds,
        fairness=fairness([world.fps for world in worlds]),
        input=spread(ms for walker in walkers for ms in walker.inputs),
    )


def _world_figures(walker: _Walker) -> WorldFigures:
    if len(walker.arrivals) < 2:
        raise ProtocolError("a world showed nothing", expected="frames to count")
    gaps = [after - before for before, after in pairwise(walker.arrivals)]
    lasted = walker.arrivals[-1] - walker.arrivals[0]
    return WorldFigures(
        fps=1000.0 * len(gaps) / lasted if lasted > 0 else 0.0,
        frames=len(walker.arrivals),
        longest_gap=max(gaps),
        stalls=walker.stalls,
        input=spread(walker.inputs),
        real_time_factor=statistics.median(walker.factors or [0.0]),
    )


def fairness(shares: Sequence[float]) -> float:
    """Jain's index of what each got."""
    squares = len(shares) * sum(share * share for share in shares)
    return sum(shares) ** 2 / squares if squares else 0.0


def headline(figures: ServedFigures) -> str:
    """One line for the top of a picture."""
    count = len(figures.worlds)
    return f"{figures.model} {figures.size}, {figures.format}: {count} worlds at once"


def as_panels(figures: ServedFigures) -> list[Stacked | Lines]:
    """For `bench.picture.draw`."""
    numbered = list(enumerate(figures.worlds, 1))
    rates = [Bar(f"world {n}", {"frames per second": w.fps}) for n, w in numbered]
    inputs = [
        Bar(f"world {n}", {"p50": w.input.p50, "to p95": w.input.p95 - w.input.p50})
        for n, w in numbered
    ]
    return [
        Stacked(f"Rate of each world (film: {figures.video_fps})", "fps", rates),
        Stacked("From the press to its first frame", "ms", inputs),
    ]
