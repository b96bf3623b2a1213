"""The SDK goes back, branches, saves and walks into saved worlds; real server, fake engine."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.client.peer import picture
from tests.client.test_served import RAW, seen, url
from tests.fakes import LIMIT_S, FakeHandle
from tests.server.live_server import LiveServer
from worldline.client import AsyncClient, Client, RefusedError
from worldline.core.errors import ControlError, WorldFileError
from worldline.core.live.server import Branched, Saved
from worldline.core.worldfile import read_world

SEATS = 2


@pytest.fixture
def server() -> Generator[LiveServer]:
    """A server on a free port."""
    handle = FakeHandle()
    with LiveServer(handle, seats=SEATS) as running:
        yield running
    handle.nothing_is_left()


def test_a_walk_goes_back_and_its_moments_with_it(server: LiveServer) -> None:
    client = Client(url(server))
    with client.world(picture(), "a lake", options=RAW, realtime=False) as world:
        first = seen(world, 9)
        world.wait(lambda: len(world.moments) > 1, LIMIT_S)
        assert world.moments[0].chunk == 0
        with pytest.raises(ControlError):
            world.rewind()
        world.rewind(0)
        world.wait(lambda: world.rewound is not None, LIMIT_S)
        back = world.rewound
        assert back is not None and back.chunk == 0
        frames = world.frames()
        picked = next(frame for frame in frames if frame.number == back.number)
        assert picked.pixels.tobytes() == first[0]
        beyond = world.rewind(10**6)
        with pytest.raises(RefusedError) as refused:
            world.applied(beyond, LIMIT_S)
        assert refused.value.failure.code == "invalid_snapshot"


def test_a_branch_is_walked_beside_its_world(server: LiveServer) -> None:
    client = Client(url(server))
    with client.world(picture(), "a lake", options=RAW, realtime=False) as world:
        pixels = seen(world, 21)
        branched = world.answer(world.branch(1), LIMIT_S)
        assert isinstance(branched, Branched)
        with client.rejoin(branched.token, format="raw", realtime=False) as other:
            assert other.id == branched.world != world.id
            assert seen(other, 12) == pixels[9:]
            full = world.branch()
            with pytest.raises(RefusedError) as refused:
                world.answer(full, LIMIT_S)
            assert refused.value.failure.code == "capacity"


def test_a_world_is_saved_and_walked_into(server: LiveServer, tmp_path: Path) -> None:
    client = Client(url(server))
    with client.world(picture(), "a lake", options=RAW, realtime=False) as world:
        world.press("w")
        pixels = seen(world, 21)
        saved = world.answer(world.save(), LIMIT_S)
        assert isinstance(saved, Saved)
        data = client.fetch(saved.url)
    assert len(data) == saved.bytes
    assert read_world(data).walk.chunks == saved.chunks >= 2
    path = tmp_path / "walk.wl"
    path.write_bytes(data)
    with client.world_file(path, options=RAW, realtime=False) as again:
        assert again.opened.prompt == "a lake"
        assert seen(again, 21) == pixels
    with client.world_file(data, at_end=True, options=RAW) as at_end:
        at_end.wait(lambda: at_end.stats is not None, LIMIT_S)
        assert at_end.stats is not None and at_end.stats.place >= saved.chunks
    with pytest.raises(WorldFileError):
        client.world_file(tmp_path / "none.wl")
    with pytest.raises(RefusedError) as refused:
        client.world_file(data[:-1]).open()
    assert refused.value.failure.code == "world_damaged"


async def both(server: LiveServer) -> Saved | Branched:
    async with AsyncClient(url(server)).world(picture(), "a lake", options=RAW) as world:
        return await world.answer(await world.save(), LIMIT_S)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_awaited_one_answers_too(server: LiveServer) -> None:
    assert isinstance(await both(server), Saved)
