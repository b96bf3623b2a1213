"""Going back where something fails, or is not there yet: the walk stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeHandle
from tests.server.live.audience import a_stage
from tests.server.live.test_travel import pixels_of, shown, walk_three
from worldline.core.config import ServerConfig
from worldline.core.errors import CapacityError
from worldline.core.live.client import Rewind
from worldline.core.live.server import Chunk, Failure, Rewound
from worldline.core.walk import Stepped, WorldStart
from worldline.runtime.protocol import OpenRequest, RewoundReply, StepRequest
from worldline.runtime.world_start import world_start
from worldline.server.history import History
from worldline.server.timemachine import TimeMachine

pytestmark = pytest.mark.anyio

DIGEST = b"d" * 16


class HalfWay(FakeHandle):
    """Goes back, and then says that it could not."""

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        super().rewind(session_id, chunk)
        raise CapacityError("no memory for that")


@pytest.mark.parametrize("way", ["the engine's", "anew"])
async def test_a_rewind_that_fails_leaves_the_walk_where_it_stood(way: str) -> None:
    handle = HalfWay() if way == "the engine's" else FakeHandle()
    async with a_stage(handle=handle) as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        if way == "anew":
            del handle.sessions["one"]._places[:]
            handle.fail_open = CapacityError("no memory for that")
        world.take(Rewind(id=2, chunk=1))
        stage.handle.allow()
        await stage.until(lambda: len(audience.all(Failure)) == 1)
        (failure,) = audience.all(Failure)
        assert (failure.id, failure.code) == (2, CapacityError.code)
        stage.handle.allow()
        await shown(stage, audience, 4)
        assert audience.all(Rewound) == []
        assert audience.all(Chunk)[-1].place == 3
        seen = pixels_of(audience, 3)
    async with a_stage() as stage, stage.walking() as (world, audience):
        await walk_three(stage, world, audience)
        stage.handle.allow()
        await shown(stage, audience, 4)
        assert np.array_equal(pixels_of(audience, 3), seen)


def request(name: str) -> OpenRequest:
    return OpenRequest(
        session_id=name, image=bytes(12), image_width=2, image_height=2, prompt="a lake", seed=4
    )


async def test_branches_and_snapshots_know_the_digests_of_all_that_was_seen(
    tmp_path: Path,
) -> None:
    async with a_stage(ServerConfig(snapshots_dir=str(tmp_path))) as stage:
        engine = stage.services.engine
        reply, history = await engine.open(request("one")), History("a lake")
        history.opened(reply)

        async def walk() -> None:
            step = StepRequest(session_id="one", chunk_index=history.place, actions=((),) * 3)
            result = await engine.step(step)
            pending.append((history.place, history.made(step, result)))
            result.release()

        async def settled() -> None:
            while pending:
                place, made = pending.pop()
                history.hashed(place, made, DIGEST)

        async def again() -> OpenRequest:
            return request("one")

        pending: list[tuple[int, Stepped]] = []
        start: WorldStart = world_start(request("one"), reply, picture=b"picture")
        machine = TimeMachine(
            stage.services, reply, history, start=start, again=again, settled=settled
        )
        await walk()
        _, branch = await machine.branch("two", 1)
        assert [step.digest for step in branch.steps] == [DIGEST]
        await walk()
        saved = await machine.snapshot()
        await machine.restore(saved.path)
        assert [step.digest for step in history.steps] == [DIGEST] * 2
        for name in ("one", "two"):
            await engine.close(name)
