"""The SDK on the server as it is run, with the fake engine behind it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator
from itertools import islice

import pytest

from tests.client.peer import picture
from tests.fakes import LIMIT_S, FakeHandle
from tests.server.live_server import LiveServer
from worldline.client import Client, RefusedError, World, WorldOptions
from worldline.core.errors import InputError
from worldline.core.live.server import Chunk

RAW = WorldOptions(format="raw", seed=7)


@pytest.fixture
def server() -> Generator[LiveServer]:
    """A server on a free port."""
    handle = FakeHandle()
    with LiveServer(handle, seats=2, worlds_per_client=8) as running:
        yield running
    handle.nothing_is_left()


def url(server: LiveServer) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{server.port}"


def seen(world: World, count: int) -> list[bytes]:
    """The pixels of the next frames."""
    frames = world.frames()
    return [next(frames).pixels.tobytes() for _ in range(count)]


def test_the_same_hands_see_the_same_world(server: LiveServer) -> None:
    walks: list[list[bytes]] = []
    for _ in range(2):
        with Client(url(server)).world(picture(), "a lake", options=RAW) as world:
            assert world.opened.width == 64
            walks.append(seen(world, 9))
    assert walks[0] == walks[1]
    assert len(set(walks[0])) > 1


def test_an_input_is_received_applied_and_shown(server: LiveServer) -> None:
    with Client(url(server)).world(picture(), "a lake", options=RAW) as world:
        receipt = world.press("w")
        world.received(receipt, LIMIT_S)
        frame = next(f for f in world.frames() if f.input >= receipt.id)
        assert world.applied(receipt, LIMIT_S).applied is not None
        assert receipt.shown == frame.number
        stats = next(event for event in world.events() if isinstance(event, Chunk))
        assert stats.frames > 0
        assert world.clock.known


def test_a_prompt_a_pause_and_a_reset_are_applied(server: LiveServer) -> None:
    with Client(url(server)).world(picture(), "a lake", options=RAW) as world:
        for receipt in (world.prompt("a desert"), world.pause(), world.resume(), world.reset(3)):
            world.received(receipt, LIMIT_S)
        assert len(seen(world, 5)) == 5


def test_a_detached_world_is_entered_again(server: LiveServer) -> None:
    client = Client(url(server))
    first = client.world(picture(), "a lake", options=RAW)
    first.open()
    seen(first, 3)
    name, token = first.id, first.detach()
    assert token is not None
    with client.rejoin(token, format="raw") as again:
        assert again.id == name
        assert again.opened.first_frame > 0
        assert len(seen(again, 3)) == 3


def test_a_spectator_sees_the_same_frames(server: LiveServer) -> None:
    with Client(url(server)).world(picture(), "a lake", options=RAW) as world:
        seen(world, 1)
        with Client(url(server)).watch(world.id, format="raw") as watching:
            theirs = {f.number: f.pixels.tobytes() for f in islice(watching.frames(), 10)}
            mine: dict[int, bytes] = {}
            for frame in world.frames():
                mine[frame.number] = frame.pixels.tobytes()
                if frame.number >= max(theirs):
                    break
            both = mine.keys() & theirs.keys()
            assert both
            assert all(mine[number] == theirs[number] for number in both)
            with pytest.raises(RefusedError):
                watching.applied(watching.press("w"), LIMIT_S)


def test_a_world_nobody_knows_is_refused(server: LiveServer) -> None:
    with pytest.raises(RefusedError):
        Client(url(server)).watch("nowhere").open()
    with pytest.raises(RefusedError):
        Client(url(server)).rejoin("nothing").open()


def test_a_picture_that_is_none_is_refused_with_a_reason(server: LiveServer) -> None:
    with pytest.raises(RefusedError, match="invalid_image"):
        Client(url(server)).world(b"no picture", "a lake").open()


def test_a_recording_is_fetched(server: LiveServer) -> None:
    pytest.importorskip("av")
    client = Client(url(server))
    with client.world(picture(), "a lake", options=RAW) as world:
        world.record()
        world.wait(lambda: world.recording is not None and world.recording.on, LIMIT_S)
        seen(world, 20)
        world.record(False)
        world.wait(lambda: world.recording is not None and not world.recording.on, LIMIT_S)
        assert world.recording is not None
        data = client.fetch(world.recording.url)
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        assert {"world.mp4", "poses.npy"} <= set(files.namelist())
    with pytest.raises(InputError, match="404"):
        client.fetch("/v1/worlds/nowhere/recording")
    with pytest.raises(InputError, match="not a path"):
        client.fetch("//elsewhere/v1")


def test_a_pause_is_waited_for(server: LiveServer) -> None:
    with Client(url(server)).world(picture(), "a lake", options=RAW) as world:
        world.pause()
        world.wait(lambda: world.state == "paused", LIMIT_S)
        world.resume()
        world.wait(lambda: world.state == "live", LIMIT_S)
        with pytest.raises(TimeoutError):
            world.wait(lambda: False, 0.01)
