"""The whole server without a model: sockets, house, real worlds and encoders, a fake engine."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.fakes import FakeHandle
from tests.server.live.calling import Client, open_socket
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live.wire import wish
from tests.server.live_server import LiveServer
from worldline.core.live.client import (
    Hello,
    Keys,
    Leave,
    Pause,
    Prompt,
    Rejoin,
    Reset,
    Resume,
    Settings,
    Watch,
)
from worldline.core.live.server import (
    Applied,
    Bye,
    Chunk,
    Failure,
    Frame,
    Opened,
    Received,
    Seat,
    StateChange,
)

SEED = 77


@pytest.fixture
def server() -> Generator[LiveServer]:
    with LiveServer(FakeHandle(), park_after_s=0.05) as running:
        wait_for(lambda: get(running.port, "/readyz")[0] == 200, "never ready")
        yield running
    handle = running.handle
    assert isinstance(handle, FakeHandle)
    handle.nothing_is_left()


def enter(client: Client, **fields: object) -> Seat:
    """Hello, enter, opened."""
    client.say(Hello())
    client.say(wish(seed=SEED, **fields))
    seat = client.until(Seat)
    client.until(Opened)
    return seat


def state(client: Client, wanted: str) -> None:
    """Wait for a state."""
    while client.until(StateChange).state != wanted:
        pass


def test_a_pause_is_parked_and_comes_back(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client)
        last = client.until(Chunk)
        client.say(Pause(id=1))
        client.until(Received)
        state(client, "paused")
        state(client, "parked")
        client.say(Resume(id=2))
        state(client, "live")
        assert client.until(Chunk).index > last.index


def test_a_reset_shows_the_start_again(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client, format="raw")
        start = client.until(Frame)
        client.until(Chunk)
        client.say(Reset(id=1))
        while (again := client.until(Frame)).payload != start.payload:
            pass
        assert again.number > start.number  # running numbers go on
        client.say(Reset(id=2, seed=78))
        client.until(Chunk)
        client.until(Chunk)
        assert client.until(Frame).payload != start.payload


def test_a_prompt_and_its_receipts(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client)
        client.say(Prompt(id=1, text="a storm", blend_chunks=2))
        client.until(Received)
        applied = client.until(Applied)
        assert applied.id == 1
        client.say(Prompt(id=2, text="   "))
        error = client.until(Failure)
        assert (error.code, error.id) == ("invalid_prompt", 2)
        handle = server.handle
        assert isinstance(handle, FakeHandle)
        assert "a storm" in {request.prompt for request in handle.requests}


def test_a_spectator_sees_what_the_holder_sees(server: LiveServer) -> None:
    with open_socket(server.port) as one, open_socket(server.port) as two:
        holder, spectator = Client(one), Client(two)
        seat = enter(holder, format="raw")
        spectator.say(Hello())
        spectator.say(Watch(world=seat.world, format="raw"))
        assert not spectator.until(Opened).controls
        theirs = spectator.until(Frame)
        while (mine := holder.until(Frame)).number < theirs.number:
            pass
        assert (mine.number, mine.payload) == (theirs.number, theirs.payload)
        spectator.say(Settings(id=1, format="jpeg"))
        while spectator.until(Frame).format != "jpeg":
            pass
        holder.say(Leave())
        assert holder.until(Bye).code == "left"
        assert spectator.until(Bye).code == "left"


def test_a_refreshed_page_goes_on_from_the_same_camera(server: LiveServer) -> None:
    with open_socket(server.port) as one, open_socket(server.port) as two:
        old, new = Client(one), Client(two)
        seat = enter(old)
        old.say(Keys(id=1, held=("w",)))
        while old.until(Frame).input != 1:
            pass
        new.say(Hello())
        new.say(Rejoin(token=seat.token or ""))
        opened = new.until(Opened)
        assert opened.controls
        assert old.closed() == 4409
        ahead = new.until(Chunk).index
        while (chunk := new.until(Chunk)).index < ahead + 2:
            pass
        assert chunk.input == 0
        handle = server.handle
        assert isinstance(handle, FakeHandle)
        assert len([request for request in handle.opened if request.seed == SEED]) == 1
