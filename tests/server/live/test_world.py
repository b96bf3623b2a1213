"""One world on a fake engine: chunks, receipts, and what a hand may do to it."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.server.live.audience import FakeAudience, a_stage
from worldline.core.config import ServerConfig
from worldline.core.errors import ControlError, PromptError, RateError, SessionClosedError
from worldline.core.live.client import (
    Camera,
    Keys,
    Pause,
    Playhead,
    Pointer,
    Prompt,
    Release,
    Reset,
    Resume,
    Settings,
)
from worldline.core.live.server import Applied, Chunk, Received
from worldline.core.motion import MOTIONLESS, Motion
from worldline.server.live.world import LiveWorld

pytestmark = pytest.mark.anyio

AHEAD = (Motion(z=1.0),) * 3
STILL = (MOTIONLESS,) * 3


def keys(id: int, *held: str) -> Keys:
    return Keys(id=id, held=held)  # pyright: ignore[reportArgumentType]


def shown_before(audience: FakeAudience, message: object) -> tuple[int, int]:
    """Chunk and latent frame of the last pictures before a message."""
    index = next(i for i, entry in enumerate(audience.log) if entry is message)
    last = [entry for entry in audience.log[:index] if entry in audience.seen][-1]
    return last.chunk, last.latent_frame  # pyright: ignore


async def test_chunks_are_shown_latent_frame_by_latent_frame() -> None:
    async with a_stage() as stage:
        world, audience = stage.world(max_chunks=2)
        opened = await world.open()
        await world.run()
        assert world.opened.first_frame == 21
        await world.close("complete")
    assert (opened.chunk, opened.latent_frames, opened.first_frame) == (3, 4, 0)
    assert (opened.state, opened.controls, opened.seed) == ("live", True, 42)
    assert [(s.chunk, s.latent_frame, s.number, len(s.pixels)) for s in audience.seen] == [
        (0, 0, 0, 1),
        (0, 1, 1, 4),
        (0, 2, 5, 4),
        (1, 0, 9, 4),
        (1, 1, 13, 4),
        (1, 2, 17, 4),
    ]
    marks = [(s.first, s.last) for s in audience.seen]
    assert marks == [(True, False), (False, False), (False, True)] * 2
    assert [(c.index, c.frames) for c in audience.all(Chunk)] == [(0, 9), (1, 12)]
    assert audience.states == ["opening", "live", "closed"]


async def test_an_input_is_received_at_once_and_applied_with_the_picture_that_shows_it() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            (received,) = world.take(keys(7, "w"))
            assert isinstance(received, Received)
            assert (received.id, received.server_ms) == (7, stage.clock.now() * 1000)
            world.take(keys(8))  # released before the next chunk: one latent frame
            stage.handle.allow()
            await stage.begun(2)
            assert audience.applied == []
            stage.handle.allow()
            await stage.until(lambda: len(audience.all(Chunk)) == 2)
            first, second = audience.all(Applied)
            assert audience.applied == [(7, 1, 0), (8, 1, 1)]
            assert shown_before(audience, first) == (1, 0)
            assert shown_before(audience, second) == (1, 1)
            assert [seen.input for seen in audience.seen[3:]] == [7, 8, 8]
            assert stage.walked()[1] == (Motion(z=1.0), MOTIONLESS, MOTIONLESS)


async def test_what_is_pressed_while_the_device_is_busy_is_in_the_chunk() -> None:
    async with a_stage() as stage:
        world, audience = stage.world(max_chunks=1)
        await world.open()
        async with stage.services.device.turn("somebody else", deadline=0.0):
            running = asyncio.create_task(world.run())
            await stage.until(lambda: stage.services.device.waiting == 1)
            await stage.clock.advance(0.3)
            world.take(keys(1, "w"))
            await stage.clock.advance(0.2)
        await running
        await world.close()
        assert stage.walked() == [AHEAD]
        (chunk,) = audience.all(Chunk)
        assert (chunk.stages["device"], chunk.stages["inbox"]) == (500.0, 200.0)


async def test_a_chunk_starts_just_in_time_with_what_is_held_then() -> None:
    async with a_stage(ServerConfig(lead_s=0.25)) as stage, stage.walking() as (world, audience):
        await stage.until(lambda: len(audience.seen) == 6)  # 21 pictures, 1.3125 s
        await stage.until(lambda: stage.clock.sleeping != [])
        await stage.clock.advance(1.03)
        world.take(keys(1, "w"))
        assert len(stage.walked()) == 2
        await stage.clock.advance(0.02)
        await stage.until(lambda: len(audience.all(Chunk)) == 3)
        assert stage.walked()[2] == AHEAD
        assert audience.all(Chunk)[2].stages["wait"] == pytest.approx(1042.5)
        assert audience.all(Chunk)[2].misses == 0


async def test_a_report_of_the_screen_moves_the_start() -> None:
    async with a_stage(ServerConfig(lead_s=0.0)) as stage, stage.walking() as (world, audience):
        await stage.until(lambda: len(audience.seen) == 6)
        now = stage.clock.now()
        world.playhead(Playhead(frame=20, lead_ms=0, at_ms=0), now)  # it plays faster than thought
        await stage.until(lambda: stage.clock.sleeping != [])
        await stage.clock.advance(0.07)
        await stage.until(lambda: len(audience.seen) == 9)
        world.take(Settings(id=1, lead_ms=500.0))
        await stage.clock.advance(0.3)
        await stage.until(lambda: len(audience.seen) == 12)


async def test_a_new_prompt_goes_into_the_next_chunk_and_only_there() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            world.take(Prompt(id=1, text="snow"))
            world.take(Prompt(id=2, text="rain", blend_chunks=3))
            with pytest.raises(PromptError):
                world.take(Prompt(id=3, text="  "))
            stage.handle.allow(3)
            await stage.chunks(3)
            await stage.until(lambda: len(audience.applied) == 2)
            asked = [(r.prompt, r.blend_chunks) for r in stage.handle.requests]
            assert asked == [(None, 0), ("rain", 3), (None, 0)]
            assert audience.applied == [(1, 1, 0), (2, 1, 0)]
            assert world.opened.prompt == "rain"


async def test_a_path_is_walked_and_one_that_is_none_changes_nothing() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            ahead = [(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.025 * i) for i in range(7)]
            world.take(Camera(id=1, poses=tuple(ahead), rate=4.0))
            with pytest.raises(ControlError):
                world.take(Camera(id=2, poses=((math.nan,) * 12,) * 2))
            with pytest.raises(ControlError, match="too long"):
                world.take(Camera(id=2, poses=tuple(ahead), rate=1e-3))
            stage.handle.allow(4)
            await stage.chunks(4)
            walked = [round(m.z, 6) for motions in stage.walked()[1:4] for m in motions]
            assert walked == [0.5] * 6 + [0.0] * 3
            assert audience.applied == [(1, 1, 0)]


async def test_paths_are_few_or_short() -> None:
    """What it takes to follow one is limited per second: by poses, and by how long they last."""
    async with a_stage() as stage, stage.walking() as (world, _):
        id = 0

        def sent(poses: int, rate: float) -> int:
            """How many paths are taken at once."""
            nonlocal id
            path = ((1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),) * poses
            for count in range(10_000):
                id += 1
                try:
                    world.take(Camera(id=id, poses=path, rate=rate))
                except RateError:
                    return count
            return id

        assert 1 <= sent(2, 1e-3) <= 10  # 1000 seconds of two poses
        await stage.clock.advance(10.0)
        assert 1 <= sent(4096, 4.0) <= 2
        assert sent(2, 4.0) == 0
        await stage.clock.advance(10.0)
        assert sent(16, 16.0) > 100


async def test_speed_is_a_setting() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking(speed=0.5) as (world, _):
            await stage.begun(1)
            world.take(keys(1, "w"))
            stage.handle.allow()
            await stage.begun(2)
            world.take(Settings(id=2, speed=0.25))
            stage.handle.allow(2)
            await stage.chunks(3)
            assert [motions[0].z for motions in stage.walked()] == [0.0, 0.5, 0.25]
            assert world.opened.speed == 0.25  # for who comes back


async def test_pause_stops_after_the_chunk_in_flight_and_resume_goes_on() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            world.take(Pause(id=1))
            assert world.state == "live"
            stage.handle.allow(10)
            await stage.until(lambda: world.state == "paused")
            await stage.clock.advance(60)
            assert audience.applied == [(1, 1, 0)]
            world.take(keys(2, "w"))
            world.take(Resume(id=3))
            await stage.chunks(2)
            await stage.until(lambda: len(audience.all(Chunk)) >= 2)
            assert stage.walked()[:2] == [STILL, AHEAD]
            assert audience.applied[1:] == [(2, 1, 0), (3, 1, 0)]
            assert audience.all(Chunk)[1].misses == 0
            assert audience.states == ["opening", "live", "paused", "live"]


async def test_pauses_that_change_nothing_are_answered_too() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            world.take(Pause(id=1))
            world.take(Resume(id=2))  # before the world could stop
            world.take(Pause(id=3))
            stage.handle.allow(9)
            await stage.until(lambda: world.state == "paused")
            world.take(Pause(id=4))
            await stage.until(lambda: len(audience.applied) == 2)
            assert audience.applied == [(3, 1, 0), (4, 1, 0)]
            world.take(Resume(id=5))
            await stage.chunks(2)
            await stage.until(lambda: len(audience.applied) == 5)
            assert audience.applied[2:] == [(2, 1, 0), (1, 1, 0), (5, 1, 0)]


async def test_words_after_a_reset_are_those_of_the_new_beginning() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, _):
            await stage.begun(1)
            world.take(Prompt(id=1, text="snow"))
            world.take(Reset(id=2))
            world.take(Prompt(id=3, text="rain"))
            stage.handle.allow(2)
            await stage.chunks(2)
            assert [r.prompt for r in stage.handle.requests] == [None, "rain"]
            assert world.opened.prompt == "rain"


async def test_reset_goes_back_to_the_start_and_numbers_go_on() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            stage.handle.allow()
            await stage.begun(2)
            world.take(Prompt(id=1, text="snow"))
            world.take(Reset(id=2))
            stage.handle.allow(2)
            await stage.chunks(3)
            await stage.until(lambda: len(audience.seen) == 9)
            starts = [(s.chunk, s.number, len(s.pixels)) for s in audience.seen if s.first]
            assert starts == [(0, 0, 1), (1, 9, 4), (2, 21, 1)]
            assert (audience.seen[6].pixels == audience.seen[0].pixels).all()
            assert [r.prompt for r in stage.handle.requests[:3]] == [None, None, None]
            assert audience.applied == [(1, 2, 0), (2, 2, 0)]
            assert world.opened.prompt == "a lake"
            world.take(Reset(id=3, seed=7))
            stage.handle.allow(2)
            await stage.chunks(5)
            await stage.until(lambda: len(audience.seen) >= 15)
            assert world.opened.seed == 7
            last = [seen for seen in audience.seen if seen.first][4]
            assert (last.pixels != audience.seen[0].pixels).any()


async def test_who_gets_the_controls_begins_with_the_speed_and_lead_of_the_start() -> None:
    async with a_stage(ServerConfig(lead_s=0.25)) as stage:
        stage.handle.hold()
        async with stage.walking(speed=0.5) as (world, _):
            await stage.begun(1)
            world.take(Settings(id=1, speed=0.25, lead_ms=900.0))
            world.let_go()  # whoever comes back finds it as it was
            assert pace(world) == (0.25, 0.9)
            world.pass_on()
            assert pace(world) == (0.5, 0.25)
            world.take(keys(1, "w"))
            stage.handle.allow()
            await stage.begun(2)
            stage.handle.allow()
            await stage.chunks(2)
            assert stage.walked()[1][0].z == 0.5


def pace(world: LiveWorld) -> tuple[float, float]:
    """Speed and lead, in seconds."""
    walk = world._walk  # pyright: ignore[reportPrivateUsage]
    assert walk is not None
    return walk.controls.hands.speed, walk.governor.lead_s


async def test_a_second_pause_is_received_before_it_is_applied() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        world.take(Pause(id=1))
        await stage.until(lambda: len(audience.applied) == 1)
        (received,) = world.take(Pause(id=2))
        assert isinstance(received, Received)
        assert len(audience.applied) == 1, "the first receipt goes out when this has returned"
        await stage.until(lambda: len(audience.applied) == 2)
        assert audience.applied[1][0] == 2


async def test_letting_go_releases_everything_and_forgets_the_ids_of_that_hand() -> None:
    async with a_stage() as stage:
        stage.handle.hold()
        async with stage.walking() as (world, audience):
            await stage.begun(1)
            world.take(keys(900, "w"))
            stage.handle.allow()
            await stage.begun(2)  # was sampled with w
            world.take(Pointer(id=901, yaw=9.0))
            world.let_go()
            stage.handle.allow()
            await stage.begun(3)
            stage.handle.allow()
            await stage.until(lambda: len(audience.seen) == 9)
            assert stage.walked()[1:3] == [AHEAD, STILL]
            assert audience.applied == []
            assert [seen.input for seen in audience.seen] == [0] * 9
            world.take(keys(1, "w"))  # another hand counts from one
            stage.handle.allow(9)
            await stage.chunks(4)
            await stage.until(lambda: audience.applied != [])
            assert audience.applied[0][0] == 1


async def test_inputs_are_refused_before_and_after() -> None:
    async with a_stage() as stage:
        world, _ = stage.world()
        with pytest.raises(SessionClosedError):
            world.take(keys(1))
        await world.open()
        world.take(Release(id=1))
        await world.close()
        with pytest.raises(SessionClosedError):
            world.take(keys(2))


async def test_the_stages_of_a_chunk_are_said() -> None:
    async with a_stage() as stage, stage.walking() as (_, audience):
        audience.encode_s = 0.01
        await stage.passing(lambda: len(audience.all(Chunk)) >= 1)
        chunk = audience.all(Chunk)[0]
        assert set(chunk.stages) == {
            *("inbox", "wait", "device", "step", "conditions", "picture", "denoise", "context"),
            *("decode", "transfer", "encode_wait", "encode", "total"),
        }
        assert (chunk.stages["denoise"], chunk.stages["decode"]) == (20.6, 9.5)
        assert chunk.stages["encode"] == pytest.approx(30.0)
        assert chunk.bytes == sum(seen.pixels.nbytes for seen in audience.seen[:3])
