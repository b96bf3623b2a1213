"""Sharing a device on a fake clock: chunks just in time, and fair when it is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

import pytest

from tests.fakes import LIMIT_S, FakeClock, FakeHandle, settle
from tests.server.live.audience import FakeAudience, Stage, a_stage
from worldline.core.live.client import Playhead
from worldline.core.live.server import Chunk
from worldline.runtime.handle import OnFrames, StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest
from worldline.server.engine import AsyncEngine
from worldline.server.live.world import LiveWorld

pytestmark = pytest.mark.anyio

R = TypeVar("R")
CHUNK_S: Final = 0.75


class SlowEngine(AsyncEngine):
    """Steps take `step_s` of a fake clock, and no thread: every run is the same."""

    def __init__(self, stage: Stage, step_s: float) -> None:
        super().__init__(stage.handle, stage.services.readers)
        self._clock = stage.clock
        self.step_s = step_s

    async def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """Take the time, then do it."""
        await self._clock.sleep(self.step_s)
        return self._handle.step(request, on_frames=on_frames)

    async def open(self, request: OpenRequest) -> OpenReply:
        """In no time."""
        return self._handle.open(request)

    async def close(self, session_id: str) -> None:
        """In no time."""
        self._handle.close(session_id)


class Street:
    """Worlds on one slow device."""

    def __init__(self, stage: Stage, engine: SlowEngine) -> None:
        self.stage = stage
        self.engine = engine
        self.worlds: list[tuple[LiveWorld, FakeAudience]] = []
        self.served = 0

    async def pass_time(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Let so much time pass in steps of a fiftieth, `each` called after every one."""
        end = self.stage.clock.now() + seconds
        async with asyncio.timeout(3 * LIMIT_S):
            while self.stage.clock.now() < end:
                await self._tick(0.02)
                if each is not None:
                    each()

    async def passing(self, work: Coroutine[Any, Any, R]) -> R:
        """Do something while time passes: a step on its way sleeps on the clock."""
        task = asyncio.create_task(work)
        while not task.done():
            await self._tick(0.01)
        return task.result()

    async def _tick(self, seconds: float) -> None:
        await self.stage.clock.advance(seconds)
        await settle(20)
        for world, _ in self.worlds:  # threads that take digests know nothing of this clock
            await world._open().production.hashed()

    async def greedy(self) -> None:
        """A mainline session without pacing: asks again the moment it is served."""
        while True:
            now = self.stage.clock.now()
            async with self.stage.services.device.turn("greedy", deadline=now + CHUNK_S):
                await self.stage.clock.sleep(self.engine.step_s)
                self.served += 1


@asynccontextmanager
async def a_street(worlds: int, step_s: float) -> AsyncGenerator[Street]:
    async with a_stage() as stage, AsyncExitStack() as stack:
        engine = SlowEngine(stage, step_s)
        stage.services = stage.services._replace(engine=engine)
        street = Street(stage, engine)
        for index in range(worlds):
            walking = stage.walking(f"world-{index}")
            street.worlds.append(await street.passing(stack.enter_async_context(walking)))
        try:
            yield street
        finally:
            await street.passing(stack.aclose())


async def test_a_world_alone_starts_late_and_misses_nothing() -> None:
    async with a_street(1, 0.3) as street:
        await street.pass_time(30)
        ((_, audience),) = street.worlds
        chunks = audience.all(Chunk)
        assert len(chunks) == pytest.approx(30 / CHUNK_S, abs=3)
        assert chunks[-1].misses == 0
        # When a chunk has left, a chunk and the lead that was asked for are queued, not more.
        assert all(chunk.lead_ms <= 1000 * (CHUNK_S + 0.15) for chunk in chunks[4:])
        assert chunks[-1].real_time_factor == pytest.approx(0.3 / CHUNK_S, abs=0.03)


@pytest.mark.parametrize("worlds", [2, 3])
async def test_worlds_that_fit_all_keep_their_deadlines(worlds: int) -> None:
    async with a_street(worlds, 0.2) as street:
        await street.pass_time(5)
        before = [audience.all(Chunk)[-1] for _, audience in street.worlds]
        await street.pass_time(30)
        for (_, audience), first in zip(street.worlds, before, strict=True):
            last = audience.all(Chunk)[-1]
            assert last.index - first.index == pytest.approx(30 / CHUNK_S, abs=2)
            assert last.misses == first.misses


async def test_a_greedy_mainline_session_gets_what_is_left_and_spoils_nothing() -> None:
    async with a_street(1, 0.25) as street:
        greedy = asyncio.create_task(street.greedy())
        await street.pass_time(5)
        ((_, audience),) = street.worlds
        first, street.served = audience.all(Chunk)[-1], 0
        await street.pass_time(30)
        last = audience.all(Chunk)[-1]
        assert last.index - first.index == pytest.approx(30 / CHUNK_S, abs=2)
        assert last.misses == first.misses
        assert street.served >= 0.9 * (30 - 30 / CHUNK_S * 0.25) / 0.25
        greedy.cancel()
        await asyncio.wait({greedy})


async def test_too_many_worlds_are_late_by_the_same_share() -> None:
    async with a_street(4, 0.3) as street:  # 1.2 s of work for 0.75 s of video
        await street.pass_time(3)
        before = [len(audience.all(Chunk)) for _, audience in street.worlds]
        await street.pass_time(30)
        counts = [len(audience.all(Chunk)) for _, audience in street.worlds]
        made = [after - already for after, already in zip(counts, before, strict=True)]
        assert sum(made) >= 0.95 * 30 / 0.3
        assert max(made) - min(made) <= 2


async def test_a_screen_that_falls_behind_is_waited_for() -> None:
    """The holder's screen shows half as many pictures a second: so many are made."""
    async with a_street(1, 0.1) as street:
        ((world, _),) = street.worlds
        clock: FakeClock = street.stage.clock
        start = clock.now()

        def report() -> None:
            frame = int((clock.now() - start) * 8)
            world.playhead(Playhead(frame=frame, lead_ms=0, at_ms=0), clock.now())

        await street.pass_time(24, report)
        handle: FakeHandle = street.stage.handle
        assert len(handle.requests) == pytest.approx(24 / CHUNK_S / 2, abs=4)
