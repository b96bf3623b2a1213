"""A world whose worker dies goes on in the next one, as if nothing had been; on a fake engine."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.fakes import FakeHandle
from tests.server.live.audience import FakeAudience, Stage, a_stage
from tests.server.live.test_travel import keys, pixels_of, shown, walk_three
from tests.server.sockets import picture
from worldline.core.config import ServerConfig
from worldline.core.errors import SnapshotError, WorkerDiedError
from worldline.core.live.client import Pause, Reset, Resume, Rewind, Save
from worldline.core.live.server import Chunk, Notice, Rewound, Saved
from worldline.core.motion import Motion
from worldline.core.worldfile import read_world
from worldline.server.live.beginning import Beginning
from worldline.server.live.world import LiveWorld
from worldline.server.recovery import MOST_IN_A_ROW
from worldline.server.warmup import REVIVAL_S

pytestmark = pytest.mark.anyio


def dying(**settings: float) -> tuple[FakeHandle, ServerConfig]:
    """A worker after which another comes."""
    handle = FakeHandle()
    handle.reviving = True
    return handle, ServerConfig(**settings)  # pyright: ignore[reportArgumentType]


async def die(stage: Stage) -> None:
    """The worker is killed; every session and every call of it is lost."""
    held = stage.handle.holding
    stage.handle.die()
    stage.handle.sessions.clear()
    if held:
        stage.handle.hold()  # what came after death needs no permits of before
    await stage.until(lambda: stage.services.device.user is None)


async def revive(stage: Stage) -> None:
    """Another worker is there."""
    await stage.clock.until_sleeping(REVIVAL_S)
    stage.handle.dead = False
    await stage.clock.advance(REVIVAL_S)


async def undisturbed(chunks: int) -> FakeAudience:
    """The same walk with a worker that lives."""
    async with a_stage() as stage, stage.walking() as (world, audience):
        stage.handle.hold()
        world.take(keys(1, "w"))
        stage.handle.allow(chunks)
        await shown(stage, audience, chunks)
    return audience


def notices(audience: FakeAudience) -> list[str]:
    return [notice.code for notice in audience.all(Notice)]


async def test_a_world_goes_on_where_it_was_with_the_pictures_it_would_have_had() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        await die(stage)
        await revive(stage)
        stage.handle.allow(2)
        await shown(stage, audience, 5)
        assert notices(audience) == ["recovering", "recovered"]
        again = handle.opened[-1]
        assert again.light is not None and again.session_id == "one"
        assert [r.chunk_index for r in handle.requests] == [0, 1, 2, 3, 4]  # none twice
        whole = await undisturbed(5)
        assert np.array_equal(audience.pixels(), whole.pixels())
        assert [seen.number for seen in audience.seen] == [seen.number for seen in whole.seen]
        assert audience.states == ["opening", "live"]


async def test_without_a_snapshot_the_walk_is_walked_again_unseen() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        handle.fail_open = SnapshotError("not with these weights")
        await die(stage)
        stage.handle.allow(100)
        await revive(stage)
        await shown(stage, audience, 5)
        assert [r.chunk_index for r in handle.requests][:6] == [0, 1, 2, 0, 1, 2]
        assert handle.opened[-1].light is None
        shown_pixels = np.concatenate([pixels_of(audience, chunk) for chunk in range(5)])
        whole = await undisturbed(5)
        assert np.array_equal(shown_pixels, whole.pixels())


async def test_it_is_no_longer_waited_for_after_a_while() -> None:
    handle, config = dying(recover_s=3.0)
    async with a_stage(config, handle) as stage:
        world, audience = stage.world()
        await world.open()
        stage.handle.hold()
        running = asyncio.create_task(world.run())
        await stage.begun(1)
        await die(stage)
        for _ in range(6):
            await stage.clock.until_sleeping(REVIVAL_S)
            await stage.clock.advance(REVIVAL_S)
        with pytest.raises(WorkerDiedError):
            await running
        assert notices(audience) == ["recovering"]
        await world.close()


@pytest.mark.parametrize("settings", [{"recover_s": 0.0}, {"revives": False}])
async def test_where_nothing_comes_after_it_the_world_ends(settings: dict[str, float]) -> None:
    handle, config = dying(recover_s=settings.get("recover_s", 9.0))
    handle.reviving = "revives" not in settings
    async with a_stage(config, handle) as stage:
        world, audience = stage.world()
        await world.open()
        stage.handle.hold()
        running = asyncio.create_task(world.run())
        await stage.begun(1)
        await die(stage)
        with pytest.raises(WorkerDiedError):
            await running
        assert notices(audience) == []
        await world.close()


async def test_a_world_under_which_every_worker_dies_ends() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage:
        world, audience = stage.world()
        await world.open()
        stage.handle.hold()
        running = asyncio.create_task(world.run())
        for _ in range(MOST_IN_A_ROW):
            await stage.begun(1)
            await die(stage)
            await revive(stage)
        await stage.begun(1)
        await die(stage)
        with pytest.raises(WorkerDiedError):
            await running
        assert notices(audience) == ["recovering", "recovered"] * MOST_IN_A_ROW
        await world.close()


async def test_a_parked_world_comes_back_when_it_goes_on() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        world.take(Pause(id=2))
        stage.handle.allow()
        await stage.until(lambda: world.state == "paused")
        world.park()
        await stage.until(lambda: world.state == "parked")
        made = len(audience.all(Chunk))
        await die(stage)
        world.take(Resume(id=3))
        stage.handle.allow(1)
        await revive(stage)
        await shown(stage, audience, made + 1)
        assert audience.all(Chunk)[-1].place == made
        assert world.state == "live"


@pytest.mark.parametrize("asked", [Rewind(id=2, chunk=1), Reset(id=2)])
async def test_what_was_asked_for_meanwhile_is_done_in_the_next_worker(
    asked: Rewind | Reset,
) -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        await die(stage)
        world.take(asked)
        await revive(stage)
        stage.handle.allow(1)
        await shown(stage, audience, 4)
        place = 1 if isinstance(asked, Rewind) else 0
        assert audience.all(Chunk)[3].place == place
        assert len(audience.all(Rewound)) == 1
        frames = pixels_of(audience, 3)
        if isinstance(asked, Rewind):
            assert np.array_equal(frames, pixels_of(audience, 1))
        else:
            assert np.array_equal(frames, pixels_of(audience, 0))


async def test_a_walk_that_was_rescued_is_saved_whole() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage:
        beginning = Beginning(picture=picture(), saves=stage.services.saves)
        async with stage.walking(beginning=beginning) as (world, audience):
            await walk_three(stage, world, audience)
            await die(stage)
            await revive(stage)
            stage.handle.allow(1)
            await shown(stage, audience, 4)
            await stage.begun(5)
            world.take(Save(id=2))
            stage.handle.allow(1)
            await stage.passing(lambda: len(audience.all(Saved)) == 1)
            told = audience.all(Saved)[0]
            found = stage.services.saves.find("one", 1)
            assert found is not None
            file = read_world(found.data)
            assert [step.motions for step in file.chunks()] == [(Motion(z=1.0),) * 3] * told.chunks
            assert len(file.walk.digests) == 16 * told.chunks


async def test_a_worker_that_dies_while_a_world_opens_is_waited_for_too() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage:
        world, audience = stage.world()
        handle.open_gate.clear()
        opening = asyncio.create_task(world.open())
        await stage.until(lambda: stage.services.device.user == "one")
        handle.die()
        handle.open_gate.set()
        await revive(stage)
        await opening
        assert notices(audience) == []
        running = asyncio.create_task(world.run())
        await shown(stage, audience, 1)
        await world.close()
        await running


async def test_a_worker_that_dies_under_a_rescue_is_waited_for_too() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        handle.fail_open = SnapshotError("not with these weights")
        await die(stage)
        await revive(stage)
        stage.handle.allow()
        await stage.until(lambda: len(handle.requests) == 4 and handle.running == 1)
        await die(stage)  # in the second of the chunks that nobody sees
        await revive(stage)
        stage.handle.allow(3)
        await shown(stage, audience, 4)
        assert notices(audience) == ["recovering", "recovered"]
        whole = await undisturbed(4)
        assert np.array_equal(pixels_of(audience, 3), pixels_of(whole, 3))


async def test_a_world_may_end_while_it_waits() -> None:
    handle, config = dying()
    async with a_stage(config, handle) as stage:
        world, _ = stage.world()
        await world.open()
        stage.handle.hold()
        running = asyncio.create_task(world.run())
        await stage.begun(1)
        await die(stage)
        await stage.clock.until_sleeping(REVIVAL_S)
        world.drain()
        await stage.clock.advance(REVIVAL_S)
        await running
        await world.close()
        closed_at_once: LiveWorld = stage.world("two")[0]
        stage.handle.dead = False
        await closed_at_once.open()
        task = asyncio.create_task(closed_at_once.run())
        await stage.begun(1)
        await die(stage)
        await stage.clock.until_sleeping(REVIVAL_S)
        await closed_at_once.close()
        await task
