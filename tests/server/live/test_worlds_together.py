"""Worlds beside each other on one device, chunks begun anew, and who pays for a slow encoder."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import msgspec
import pytest

from tests.fakes import LIMIT_S, FakeHandle, fake_info, settle
from tests.server.live.audience import FakeAudience, Stage, a_stage
from worldline.core.config import ServerConfig
from worldline.core.errors import AbortedError
from worldline.core.live.client import Keys, Pad, Pointer, Prompt, Script
from worldline.core.live.server import Chunk
from worldline.core.motion import MOTIONLESS, Motion
from worldline.runtime.handle import SLOTS_PER_SESSION
from worldline.server.live.production import fewer
from worldline.server.live.world import LiveWorld

pytestmark = pytest.mark.anyio

AHEAD = (Motion(z=1.0),) * 3
STILL = (MOTIONLESS,) * 3
EAGER = ServerConfig(restart_s=60.0)


def keys(id: int, *held: str) -> Keys:
    return Keys(id=id, held=held)  # pyright: ignore[reportArgumentType]


async def alone(wish: dict[str, object], held: str) -> FakeAudience:
    """The same walk with nobody beside it."""
    async with a_stage() as stage:
        world, audience = stage.world(**wish)  # pyright: ignore[reportArgumentType]
        await world.open()
        world.take(keys(1, *held))
        await run_all(stage, world)
    return audience


async def run_all(stage: Stage, *worlds: LiveWorld) -> None:
    """Let time pass until all have run to their end; then close them."""
    tasks = [asyncio.create_task(world.run()) for world in worlds]
    await stage.passing(lambda: all(task.done() for task in tasks))
    for task, world in zip(tasks, worlds, strict=True):
        task.result()
        await world.close()


async def test_a_world_walked_beside_others_gives_the_frames_it_gives_alone() -> None:
    wishes: list[dict[str, Any]] = [
        {"seed": 1, "max_chunks": 5, "prompt": "a lake"},
        {"seed": 2, "max_chunks": 7, "prompt": "a street"},
    ]
    async with a_stage() as stage:
        together = [stage.world(f"w{i}", **wish) for i, wish in enumerate(wishes)]
        for (world, _), held in zip(together, "wd", strict=True):
            await world.open()
            world.take(keys(1, held))
        await run_all(stage, *(world for world, _ in together))
    for (_, audience), wish, held in zip(together, wishes, "wd", strict=True):
        assert (audience.pixels() == (await alone(wish, held)).pixels()).all()
        assert [seen.view for seen in audience.seen] == [
            seen.view for seen in (await alone(wish, held)).seen
        ]


async def test_worlds_take_turns_when_the_device_is_too_slow_for_both() -> None:
    """Every step takes a second of the clock, a chunk plays three quarters of one."""
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking("a"), stage.walking("b"):
            for count in range(1, 21):
                await stage.begun(count)
                assert stage.handle.running == 1, "the engine never sees two steps at once"
                await stage.clock.advance(1.0)
                stage.handle.allow()
                await stage.until(lambda count=count: len(stage.handle.requests) >= count)
            served = Counter(request.session_id for request in stage.handle.requests[:20])
            assert abs(served["a"] - served["b"]) <= 1


class Moving(FakeHandle):
    """An engine whose moves between the memories end when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.moving = 0
        self.permits = threading.Semaphore(0)

    def _wait(self) -> None:
        self.moving += 1
        assert self.permits.acquire(timeout=LIMIT_S), "nobody let this move end"
        self.moving -= 1

    def park(self, session_id: str) -> None:
        """With a permit."""
        self._wait()
        super().park(session_id)

    def unpark(self, session_id: str) -> None:
        """With a permit."""
        self._wait()
        super().unpark(session_id)


async def test_others_walk_on_while_a_world_moves_to_host_memory_and_back() -> None:
    handle = Moving()
    async with (
        a_stage(handle=handle) as stage,
        stage.walking("a") as (world, _),
        stage.walking("b"),
    ):
        await stage.chunks(1, "a")
        world.park()
        await stage.passing(lambda: handle.moving == 1)
        made, others = len(stage.walked("a")), len(stage.walked("b"))
        await stage.chunks(others + 3, "b")
        handle.permits.release()
        await stage.until(lambda: world.state == "parked")
        world.resume()
        await stage.until(lambda: handle.moving == 1)
        others = len(stage.walked("b"))
        await stage.chunks(others + 3, "b")
        assert (world.state, len(stage.walked("a"))) == ("parked", made)
        handle.permits.release()
        await stage.chunks(made + 1, "a")


async def test_a_slow_encoder_keeps_its_own_world_waiting_and_nobody_else() -> None:
    async with (
        a_stage() as stage,
        stage.walking("slow") as (_, stuck),
        stage.walking("quick") as (_, quick),
    ):
        stuck.gate.clear()
        await stage.passing(
            lambda: len(stage.walked("slow")) - len(stuck.all(Chunk)) == SLOTS_PER_SESSION
        )
        made, others = len(stage.walked("slow")), len(stage.walked("quick"))
        await stage.chunks(others + 5, "quick")
        assert len(stage.walked("slow")) == made
        assert quick.all(Chunk)[-1].misses == 0
        stuck.gate.set()
        await stage.chunks(made + 1, "slow")


async def test_a_chunk_is_begun_anew_when_the_hand_changes_its_mind() -> None:
    async with a_stage(EAGER) as stage:
        stage.handle.hold()
        async with stage.walking(max_chunks=4) as (world, audience):
            await stage.entered()
            world.take(Prompt(id=1, text="snow"))
            stage.handle.allow()
            await stage.entered()  # sampled standing still, with the prompt
            world.take(keys(2, "w"))
            world.take(keys(3, "w", "l"))
            assert stage.handle.calls == [("abort", "one")]  # once is enough
            stage.handle.allow()
            await stage.entered()
            world.take(keys(4))  # the second try goes to its end
            assert len(stage.handle.calls) == 1
            stage.handle.allow(9)
            await stage.passing(lambda: len(audience.all(Chunk)) >= 3)
            assert stage.walked()[:3] == [STILL, (Motion(z=1.0, yaw=1.0),) * 3, STILL]
            assert [r.prompt for r in stage.handle.requests[:3]] == [None, "snow", None]
            assert audience.applied == [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 2, 0)]
            assert [chunk.index for chunk in audience.all(Chunk)][:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (keys(1, "w"), True),
        (Pad(id=1, x=0.5), True),
        (Script(id=1, frames=(("w",),)), True),
        (Pointer(id=1, yaw=3.0), False),  # a mouse moves all the time
        (keys(1), False),
        (Prompt(id=1, text="snow"), False),
    ],
)
async def test_what_counts_as_a_change_of_mind(
    message: Keys | Pad | Pointer, changes: bool
) -> None:
    async with a_stage(EAGER) as stage:
        stage.handle.hold()
        async with stage.walking() as (world, _):
            await stage.begun(1)
            world.take(message)
            assert stage.handle.calls == [("abort", "one")] * changes


async def test_a_chunk_is_not_begun_anew_unless_that_is_set() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, _):
            await stage.begun(1)
            world.take(keys(1, "w"))
            assert stage.handle.calls == []


class Stubborn(FakeHandle):
    """An engine that is too far to give up a chunk: every abort comes too late."""

    def abort(self, session_id: str) -> bool:
        """Ask, and be asked too late."""
        self.calls.append(("abort", session_id))
        return True


async def test_a_chunk_that_could_not_be_given_up_is_shown_with_what_it_was_made_of() -> None:
    async with a_stage(EAGER, Stubborn()) as stage:
        stage.handle.hold()
        async with stage.walking(max_chunks=2) as (world, audience):
            await stage.begun(1)
            world.take(keys(1, "w"))
            stage.handle.allow(2)
            await stage.until(lambda: len(audience.all(Chunk)) == 2)
            assert stage.walked() == [STILL, AHEAD]
            assert audience.applied == [(1, 1, 0)]


async def test_an_abort_that_nobody_asked_for_is_a_failure() -> None:
    async with a_stage() as stage:
        world, _ = stage.world()
        stage.handle.fail_step = (1, AbortedError("given up"))
        await world.open()
        with pytest.raises(AbortedError):
            await world.run()
        await world.close()


async def test_a_new_hand_does_not_get_back_what_the_old_one_held_in_a_given_up_chunk() -> None:
    async with a_stage(EAGER) as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            world.take(keys(1, "w"))  # gives the chunk up
            world.let_go()
            stage.handle.allow(2)
            await stage.until(lambda: len(stage.walked()) == 1)
            await settle()
            assert stage.walked() == [STILL]
            assert audience.applied == []


@pytest.mark.parametrize(("mode", "steps"), [("fast", 3), ("exact", None)])
async def test_a_slow_device_makes_fewer_steps_but_not_in_exact_mode(
    mode: str, steps: int | None
) -> None:
    handle = FakeHandle(msgspec.structs.replace(fake_info(), mode=mode))
    async with a_stage(handle=handle) as stage:
        handle.hold()
        async with stage.walking() as (_, audience):
            for count in range(1, 6):
                await stage.begun(count)
                await stage.clock.advance(1.0)  # for three quarters of a second of video
                handle.allow()
            await stage.begun(6)
            assert handle.requests[1].steps is None
            assert handle.requests[-1].steps == steps
            assert audience.all(Chunk)[-1].levers == (() if steps is None else ("steps",))
            assert audience.shares == []  # encoding is no part of it: quality stays
    assert [fewer(count) for count in (1, 2, 4, 8, 50)] == [1, 1, 3, 6, 38]


async def test_when_encoding_is_too_slow_quality_is_lowered_and_said() -> None:
    async with a_stage() as stage, stage.walking() as (_, audience):
        audience.encode_s = 0.3  # three latent frames a chunk: 0.9 s for 0.75 s of video
        await stage.passing(lambda: audience.shares != [])
        assert audience.shares == [0.5]
        slow = audience.all(Chunk)[-1]
        assert slow.levers == ("encode_quality",)
        assert slow.real_time_factor == pytest.approx(1.2)
        assert slow.misses > 0
        audience.encode_s = 0.0
        await stage.passing(lambda: len(audience.shares) == 2)
        assert audience.shares == [0.5, 1.0]
        assert audience.all(Chunk)[-1].levers == ()
