"""One world on a fake engine that goes back, is saved, and follows what was saved."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import LIMIT_S, FakeHandle, settle
from tests.server.live.audience import FakeAudience, Stage, a_stage
from worldline.core.errors import ControlError, RateError, SnapshotError
from worldline.core.live.client import Branch, Keys, Pause, Prompt, Reset, Resume, Rewind, Save
from worldline.core.live.server import Applied, Chunk, Failure, Moment, Rewound, Saved
from worldline.core.motion import MOTIONLESS, Motion
from worldline.core.walk import WorldFile, frames_digest
from worldline.core.worldfile import read_world
from worldline.runtime.protocol import OpenReply
from worldline.server.errands import MOST
from worldline.server.history import seconds_at
from worldline.server.live.beginning import Beginning, Fork
from worldline.server.live.world import LiveWorld

pytestmark = pytest.mark.anyio

STILL = (MOTIONLESS,) * 3
AHEAD = (Motion(z=1.0),) * 3


def keys(id: int, *held: str) -> Keys:
    return Keys(id=id, held=held)  # pyright: ignore[reportArgumentType]


def pixels_of(audience: FakeAudience, chunk: int) -> NDArray[np.uint8]:
    """The pictures of one chunk, by its running index, `F H W 3`."""
    return np.concatenate([seen.pixels for seen in audience.seen if seen.chunk == chunk])


async def shown(stage: Stage, audience: FakeAudience, chunks: int) -> None:
    await stage.passing(lambda: len(audience.all(Chunk)) >= chunks)


async def walk_three(stage: Stage, world: LiveWorld, audience: FakeAudience) -> None:
    """Ahead for three chunks, each in its own turn; the engine is on hold after them."""
    stage.handle.hold()
    world.take(keys(1, "w"))
    stage.handle.allow(3)
    await shown(stage, audience, 3)
    await stage.begun(4)


async def test_a_walk_goes_back_to_a_chunk_and_gives_the_same_pictures_again() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        world.take(Rewind(id=2, chunk=1))
        stage.handle.allow()  # the chunk that runs is given up
        await stage.until(lambda: len(audience.all(Rewound)) == 1)
        (back,) = audience.all(Rewound)
        assert (back.chunk, back.seconds, back.number, back.prompt) == (1, 9 / 16, 33, "a lake")
        stage.handle.allow(2)
        await shown(stage, audience, 5)
        assert [(c.index, c.place) for c in audience.all(Chunk)] == [
            (0, 0), (1, 1), (2, 2), (3, 1), (4, 2),
        ]  # fmt: skip
        for again, before in ((3, 1), (4, 2)):
            assert np.array_equal(pixels_of(audience, again), pixels_of(audience, before))
        assert ("abort", "one") in stage.handle.calls
        numbers = [seen.number for seen in audience.seen]
        assert numbers == sorted(set(numbers))
        assert [m.id for m in audience.all(Applied)] == [1, 2]


async def test_seconds_go_back_from_where_the_walk_is_and_not_beyond_its_start() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        world.take(Rewind(id=2, seconds=0.76))  # a chunk is 0.75 s
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Rewound)) == 1)
        world.take(Rewind(id=3, seconds=1e6))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Rewound)) == 2)
        stage.handle.allow()
        await shown(stage, audience, 4)
        assert [back.chunk for back in audience.all(Rewound)] == [1, 0]
        last = audience.all(Chunk)[-1]
        assert (last.place, last.frames) == (0, 9)  # a first chunk again


async def test_a_place_that_is_not_there_yet_is_refused_and_changes_nothing() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        for wrong in (Rewind(id=2), Rewind(id=3, chunk=1, seconds=1.0)):
            with pytest.raises(ControlError, match="where"):
                world.take(wrong)
        world.take(Prompt(id=4, text="snow"))
        with pytest.raises(SnapshotError, match="got 9"):
            world.take(Rewind(id=5, chunk=9))
        world.take(Branch(id=6, chunk=9))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Failure)) == 1)
        (failure,) = audience.all(Failure)
        assert (failure.id, failure.code) == (6, ControlError.code)  # it has no family
        assert ("abort", "one") not in stage.handle.calls
        stage.handle.allow()
        await shown(stage, audience, 5)
        assert audience.all(Chunk)[-1].place == 4
        assert stage.handle.requests[4].prompt == "snow"
        assert audience.all(Rewound) == []


async def test_only_so_much_is_asked_for_at_once() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        for id in range(2, MOST + 2):
            world.take(Rewind(id=id, chunk=0))
        with pytest.raises(RateError):
            world.take(Rewind(id=99, chunk=0))
        with pytest.raises(RateError):
            world.take(Reset(id=100))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Rewound)) == MOST)


@pytest.mark.parametrize("light", [True, False])
async def test_what_the_engine_does_not_keep_is_opened_anew(light: bool) -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        session = stage.handle.sessions["one"]
        del session._places[:]
        if not light:
            stage.handle.fail_open = SnapshotError("not with these weights")
        world.take(Rewind(id=2, chunk=2))
        stage.handle.allow(2 if light else 4)  # one given up, perhaps two unseen, one shown
        await shown(stage, audience, 4)
        assert audience.all(Rewound)[0].chunk == 2
        assert np.array_equal(pixels_of(audience, 3), pixels_of(audience, 2))
        again = [2] if light else [0, 1, 2]
        assert [r.chunk_index for r in stage.handle.requests] == [0, 1, 2, *again]


async def test_the_words_of_that_place_hold_again_and_those_said_since_stay_said() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        stage.handle.hold()
        await stage.begun(1)
        world.take(Prompt(id=1, text="snow", blend_chunks=2))
        stage.handle.allow(2)
        await shown(stage, audience, 2)
        assert world.opened.prompt == "snow"
        await stage.begun(3)
        world.take(Prompt(id=2, text="fog"))
        world.take(Rewind(id=3, chunk=1))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Rewound)) == 1)
        assert audience.all(Rewound)[0].prompt == "a lake"
        assert world.opened.prompt == "a lake"
        stage.handle.allow()
        await shown(stage, audience, 3)
        await stage.begun(4)
        world.take(Rewind(id=4, chunk=1))
        world.take(Prompt(id=5, text="rain"))
        stage.handle.allow(2)
        await shown(stage, audience, 4)
        assert [r.prompt for r in stage.handle.requests] == [None, "snow", None, "rain"]
        assert world.opened.prompt == "rain"


async def test_a_paused_world_goes_back_and_stays_paused() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        world.take(Pause(id=2))
        stage.handle.allow()
        await stage.until(lambda: world.state == "paused")
        made = len(stage.handle.requests)
        world.take(Rewind(id=3, chunk=1))
        await stage.until(lambda: len(audience.all(Rewound)) == 1)
        assert (world.state, len(stage.handle.requests)) == ("paused", made)
        stage.handle.allow(1)
        world.take(Resume(id=4))
        await shown(stage, audience, made + 1)
        assert audience.all(Chunk)[-1].place == 1


async def test_a_reset_goes_back_to_the_start() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        await stage.until(lambda: len(world.moments) == 2)
        world.take(Reset(id=2, seed=9))
        stage.handle.allow(2)
        await shown(stage, audience, 5)
        (back,) = audience.all(Rewound)
        assert (back.chunk, back.seconds, back.prompt) == (0, 0.0, "a lake")
        assert audience.all(Chunk)[-1].place == 0
        assert world.opened.seed == 9
        await stage.until(lambda: [m.chunk for m in world.moments] == [0])


class Nursery:
    """A family whose branches never come about."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.given_up: list[str] = []

    def reserve(self) -> str:
        self.names.append(f"branch-{len(self.names)}")
        return self.names[-1]

    def found(self, name: str, fork: Fork) -> str:
        raise AssertionError(f"{name} of {fork}")

    def give_up(self, name: str) -> None:
        self.given_up.append(name)


class SlowBranches(FakeHandle):
    """Branches are there long before it is said."""

    def __init__(self) -> None:
        super().__init__()
        self.branched, self.tell = threading.Event(), threading.Event()

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        reply = super().branch(session_id, new_id, chunk)
        self.branched.set()
        assert self.tell.wait(LIMIT_S)
        return reply


async def test_a_branch_of_a_world_that_ends_meanwhile_leaves_nothing() -> None:
    handle, family = SlowBranches(), Nursery()
    async with a_stage(handle=handle) as stage:
        beginning = a_beginning(stage, family=family)
        async with stage.walking(beginning=beginning) as (world, audience):
            await walk_three(stage, world, audience)
            world.take(Branch(id=2))
            stage.handle.allow()
            await stage.until(handle.branched.is_set)
            closing = asyncio.create_task(world.close("over"))
            await settle()
            handle.tell.set()
            await closing
        assert family.given_up == family.names == ["branch-0"]
        assert "branch-0" in handle.closed


async def test_moments_are_of_the_walk_as_it_is() -> None:
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        await stage.until(lambda: len(world.moments) == 2)
        reply = stage.handle.sessions["one"].reply
        assert [m.chunk for m in world.moments] == [0, 2]  # chunks begin at 0, 0.56 and 1.31 s
        assert [m.number for m in world.moments] == [0, 21]
        assert [m.seconds for m in world.moments] == [0.0, seconds_at(2, reply)]
        assert all(m.picture.startswith(b"\xff\xd8") for m in world.moments)
        world.take(Rewind(id=2, chunk=2))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Rewound)) == 1)
        assert [m.chunk for m in world.moments] == [0]
        stage.handle.allow()
        await stage.passing(lambda: len(audience.all(Moment)) == 3)
        assert [(m.chunk, m.number) for m in world.moments] == [(0, 0), (2, 33)]


async def saved(stage: Stage, world: LiveWorld, audience: FakeAudience, id: int) -> WorldFile:
    """Save the walk now."""
    world.take(Save(id=id))
    stage.handle.allow()
    await stage.until(lambda: any(m.id == id for m in audience.all(Saved)))
    told = next(m for m in audience.all(Saved) if m.id == id)
    number = int(told.url.rpartition("/")[2].removesuffix(".wl"))
    found = stage.services.saves.find("one", number)
    assert found is not None and found.url == told.url
    assert len(found.data) == told.bytes
    file = read_world(found.data)
    assert (file.walk.chunks, file.seconds) == (told.chunks, told.seconds)
    return file


def a_beginning(stage: Stage, **parts: object) -> Beginning:
    return Beginning(saves=stage.services.saves, **parts)  # pyright: ignore[reportArgumentType]


async def a_file(handle: FakeHandle) -> tuple[WorldFile, list[NDArray[np.uint8]]]:
    """A walk with a prompt and a branch cut off, saved; and the pictures of its chunks."""
    async with a_stage(handle=handle) as stage:
        beginning = a_beginning(stage, picture=b"picture")
        async with stage.walking(beginning=beginning) as (world, audience):
            await walk_three(stage, world, audience)
            world.take(Rewind(id=2, chunk=2))
            world.take(keys(3))
            world.take(Prompt(id=4, text="snow", blend_chunks=2))
            stage.handle.allow(3)
            await shown(stage, audience, 5)
            file = await saved(stage, world, audience, 5)
            chunks = [0, 1, 3, 4, 5][: file.walk.chunks]
            await shown(stage, audience, len(chunks) + 1)
            return file, [pixels_of(audience, chunk) for chunk in chunks]


async def test_a_saved_walk_has_what_was_asked_and_what_was_seen() -> None:
    handle = FakeHandle()
    file, pictures = await a_file(handle)
    steps = list(file.chunks())
    assert [step.motions for step in steps[:4]] == [
        AHEAD,
        AHEAD,
        steps[2].motions,
        steps[3].motions,
    ]
    assert (steps[2].prompt, steps[2].blend_chunks) == ("snow", 2)
    assert [step.digest for step in steps] == [frames_digest(frames) for frames in pictures]
    assert (file.start.prompt, file.start.seed, file.start.picture) == ("a lake", 42, b"picture")
    assert file.made.weights == "fake"


async def test_a_file_is_walked_again_until_a_hand_moves() -> None:
    file, pictures = await a_file(FakeHandle())
    async with a_stage() as stage:
        beginning = a_beginning(stage, file=file)
        async with stage.walking(beginning=beginning) as (world, audience):
            stage.handle.hold()
            stage.handle.allow(3)
            await shown(stage, audience, 3)
            for chunk in range(3):
                assert np.array_equal(pixels_of(audience, chunk), pictures[chunk])
            assert world.opened.prompt == "a lake"
            world.take(keys(1))  # holds nothing: the tape goes on
            await stage.begun(4)
            stage.handle.allow()
            await shown(stage, audience, 4)
            assert np.array_equal(pixels_of(audience, 3), pictures[3])
            await stage.begun(5)
            world.take(keys(2, "s"))
            stage.handle.allow(2)
            await shown(stage, audience, 6)
            assert stage.walked()[5] == (Motion(z=-1.0),) * 3


async def test_a_tape_ends_and_the_hand_goes_on() -> None:
    file, _ = await a_file(FakeHandle())
    async with (
        a_stage() as stage,
        stage.walking(beginning=a_beginning(stage, file=file)) as (_, audience),
    ):
        await shown(stage, audience, file.walk.chunks + 1)
        assert stage.walked()[file.walk.chunks] == STILL


async def test_a_file_opens_at_its_end_unseen() -> None:
    file, pictures = await a_file(FakeHandle())
    async with a_stage() as stage:
        beginning = a_beginning(stage, file=file, at_end=True)
        async with stage.walking(beginning=beginning) as (world, audience):
            await shown(stage, audience, 1)
            first = audience.all(Chunk)[0]
            assert (first.place, first.index, first.frames) == (file.walk.chunks, 0, 12)
            assert audience.seen[0].number == 0
            assert world.opened.prompt == "snow"
            stage.handle.hold()
            world.take(Rewind(id=1, chunk=file.walk.chunks - 1))
            stage.handle.allow(2)
            await stage.until(lambda: len(audience.all(Rewound)) == 1)
            again = await stage_chunk(stage, audience, place=file.walk.chunks - 1)
            assert again.shape == pictures[-1].shape


async def stage_chunk(stage: Stage, audience: FakeAudience, *, place: int) -> NDArray[np.uint8]:
    """The pictures of the newest chunk at a place of the walk."""
    await stage.passing(lambda: audience.all(Chunk)[-1].place == place)
    return pixels_of(audience, audience.all(Chunk)[-1].index)


async def test_a_world_in_a_fast_mode_has_no_digests() -> None:
    handle = FakeHandle()
    handle._info = msgspec.structs.replace(handle.info, mode="fast")
    file, _ = await a_file(handle)
    assert file.walk.digests == b""
    assert file.made.mode == "fast"
