"""How a world rests and how it ends: parked, drained, closed, failed. Nothing stays behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.fakes import LIMIT_S, FakeHandle, settle
from tests.server.live.audience import Stage, a_stage
from worldline.core.errors import (
    CapacityError,
    ConfigError,
    GenerationError,
    WorkerDiedError,
    WorldlineError,
)
from worldline.core.live.client import Keys, Pause, Reset, Resume
from worldline.core.live.server import Chunk
from worldline.core.motion import Motion

pytestmark = pytest.mark.anyio


class Full(FakeHandle):
    """An engine without memory for the next `refusals` worlds that come back."""

    refusals = 0

    def unpark(self, session_id: str) -> None:
        """Refuse, or do it."""
        if self.refusals:
            self.refusals -= 1
            raise CapacityError("no memory on the device")
        super().unpark(session_id)


async def test_a_paused_world_is_parked_and_comes_back_where_it_was() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await stage.chunks(2)
        world.pause()
        await stage.until(lambda: world.state == "paused")
        made = len(stage.walked())
        world.park()
        await stage.until(lambda: world.state == "parked")
        await stage.clock.advance(1000)
        assert len(stage.walked()) == made
        world.take(Keys(id=1, held=("w",)))
        world.take(Resume(id=2))
        await stage.chunks(made + 1)
        assert stage.walked()[made] == (Motion(z=1.0),) * 3
        assert stage.handle.calls == [("park", "one"), ("unpark", "one")]
        assert audience.states == ["opening", "live", "paused", "parked", "live"]


async def test_a_world_that_finds_no_memory_stays_parked_and_tries_again() -> None:
    handle = Full()
    async with a_stage(handle=handle) as stage, stage.walking() as (world, _):
        await stage.chunks(1)
        world.park()
        await stage.until(lambda: world.state == "parked")
        made, handle.refusals = len(stage.walked()), 2
        world.resume()
        await stage.until(lambda: handle.refusals == 1)
        assert world.state == "parked"
        await stage.chunks(made + 1)
        assert (handle.refusals, world.state) == (0, "live")


async def test_a_parked_world_can_be_reset_and_stays_where_it_is() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await stage.chunks(2)
        world.park()
        await stage.until(lambda: world.state == "parked")
        world.take(Reset(id=1, seed=5))
        await stage.until(lambda: ("reset", "one") in stage.handle.calls)
        assert world.state == "parked"
        assert world.opened.seed == 5
        made = len(stage.walked())
        world.resume()
        await stage.chunks(made + 1)
        await stage.until(lambda: audience.seen[-1].chunk == made)
        first = next(seen for seen in audience.seen if seen.chunk == made)
        assert len(first.pixels) == 1  # it begins with the picture


async def test_pausing_while_the_governor_waits_stops_at_once() -> None:
    async with a_stage() as stage, stage.walking() as (world, _):
        await stage.until(lambda: len(stage.walked()) == 2)
        await stage.until(lambda: stage.clock.sleeping != [])
        world.pause()
        await settle()
        assert world.state == "paused"
        assert stage.clock.sleeping == []
        world.resume()
        await stage.until(lambda: len(stage.walked()) == 3)


async def test_a_pause_while_waiting_for_the_device_gives_the_turn_back() -> None:
    async with a_stage() as stage:
        world, audience = stage.world()
        await world.open()
        async with stage.services.device.turn("other", deadline=0.0):
            running = asyncio.create_task(world.run())
            await stage.until(lambda: stage.services.device.waiting == 1)
            world.take(Pause(id=1))
        await stage.until(lambda: world.state == "paused")
        assert (stage.walked(), audience.applied) == ([], [(1, 0, 0)])
        await world.close()
        await running


async def test_a_draining_world_ends_after_the_chunk_in_flight() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        world, audience = stage.world()
        await world.open()
        running = asyncio.create_task(world.run())
        await stage.begun(1)
        world.drain()
        world.drain()
        assert world.state == "draining"
        stage.handle.allow(9)
        async with asyncio.timeout(LIMIT_S):
            await running
        assert [chunk.index for chunk in audience.all(Chunk)] == [0]
        assert len(audience.seen) == 3
        assert audience.states == ["opening", "live", "draining"]
        await world.close("draining")


@pytest.mark.parametrize("how", ["governor", "paused", "parked"])
async def test_a_world_that_waits_ends_at_once_when_it_drains(how: str) -> None:
    async with a_stage() as stage:
        world, _ = stage.world()
        await world.open()
        running = asyncio.create_task(world.run())
        await stage.until(lambda: stage.clock.sleeping != [])
        if how == "paused":
            world.pause()
        elif how == "parked":
            world.park()
        await stage.until(lambda: how in ("governor", world.state))
        made = len(stage.walked())
        world.drain()
        async with asyncio.timeout(LIMIT_S):
            await running
        assert len(stage.walked()) == made
        await world.close("draining")


async def test_a_failed_chunk_is_a_typed_failure_after_what_was_made_was_shown() -> None:
    async with a_stage() as stage:
        stage.handle.fail_step = (2, GenerationError("the engine broke"))
        world, audience = stage.world()
        await world.open()
        running = asyncio.create_task(world.run())
        await stage.passing(running.done)
        with pytest.raises(GenerationError, match="broke"):
            running.result()
        assert [chunk.index for chunk in audience.all(Chunk)] == [0, 1]
        await world.close("generation_error")
        assert world.state == "closed"
        assert stage.services.device.user is None


async def test_a_dead_worker_ends_the_world_and_its_close() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        world, _ = stage.world()
        await world.open()
        running = asyncio.create_task(world.run())
        await stage.begun(1)
        stage.handle.die()
        with pytest.raises(WorkerDiedError):
            await running
        await world.close("worker_died")
        assert world.state == "closed"
        stage.handle.sessions.clear()


async def test_a_broken_encoder_ends_the_world_and_gives_its_pictures_back() -> None:
    async with a_stage() as stage:
        world, audience = stage.world()
        audience.broken = GenerationError("no encoder")
        await world.open()
        with pytest.raises(WorldlineError, match="no encoder"):
            await world.run()
        await world.close()


async def test_what_cannot_be_opened_is_closed_all_the_same() -> None:
    async with a_stage() as stage:
        stage.handle.fail_open = ConfigError("too large")
        world, audience = stage.world()
        with pytest.raises(ConfigError):
            await world.open()
        await world.close()
        assert audience.states == ["opening", "closed"]


async def test_a_world_that_was_never_opened_closes_without_the_engine() -> None:
    async with a_stage() as stage:
        world, audience = stage.world()
        closed = len(stage.handle.closed)
        await world.close()
        assert len(stage.handle.closed) == closed
        assert audience.states == ["closed"]


async def test_cancelled_while_it_opens() -> None:
    async with a_stage() as stage:
        stage.handle.open_gate = threading.Event()
        world, _ = stage.world()
        opening = asyncio.create_task(world.open())
        await stage.until(lambda: stage.services.device.user == "one")
        opening.cancel()
        stage.handle.open_gate.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await world.close()
        assert stage.services.device.user is None


async def close_it(stage: Stage, world_close: asyncio.Task[None]) -> None:
    await settle()
    if stage.handle.holding:
        stage.handle.allow(1000)
    await world_close


@pytest.mark.parametrize("moment", ["step", "pause", "governor", "encoder", "device"])
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_closed_at_any_moment_nothing_is_left(moment: str, how: str) -> None:
    async with a_stage() as stage:
        world, audience = stage.world()
        await world.open()
        if moment == "encoder":
            audience.gate.clear()
        if moment == "step":
            stage.handle.hold()
        running = asyncio.create_task(world.run())
        if moment == "step":
            await stage.begun(1)
        elif moment == "pause":
            world.pause()
            await stage.until(lambda: world.state == "paused")
        elif moment == "governor":
            await stage.until(lambda: stage.clock.sleeping != [])
        elif moment == "encoder":
            await stage.until(lambda: len(stage.walked()) == 2)
        else:
            await stage.until(lambda: stage.clock.sleeping != [])
            other = stage.services.device.turn("other", deadline=0.0)
            await other.__aenter__()
            await stage.clock.advance(5)
            assert stage.services.device.waiting == 1
        if how == "cancel":
            running.cancel()
        closing = asyncio.create_task(world.close("over"))
        await close_it(stage, closing)
        await asyncio.wait({running})
        if moment == "device":
            await other.__aexit__(None, None, None)  # pyright: ignore[reportPossiblyUnboundVariable]
        assert world.state == "closed"
        assert stage.services.device.waiting == 0
        await world.close("twice")
        assert audience.states.count("closed") == 1
