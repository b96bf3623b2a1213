"""Packaged weights, a worker process, real sockets: two worlds, a third in line, a rejoin."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

import worldline
from tests.server.live.calling import Client, open_socket
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live_server import LiveServer
from worldline.core.live.client import Enter, Hello, Keys, Rejoin, Script
from worldline.core.live.server import (
    Applied,
    Bye,
    Chunk,
    Frame,
    Opened,
    Queued,
    Received,
    Seat,
)
from worldline.core.live.shared import Action
from worldline.models.pocket import params as pocket
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import WorkerSettings

GALLERY = Path(pocket.__file__).with_name("gallery")
SCRIPTS: Final[dict[int, tuple[tuple[Action, ...], ...]]] = {
    0: (("w",), ("w", "l"), ("l",)),
    1: (("j",), ("s",), ("d", "k")),
}
CHUNKS = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Walk:
    """What one visitor saw: pictures by number, and the chunk its script began with."""

    def __init__(self) -> None:
        self.pictures: dict[int, bytes] = {}
        self.began = 0
        self.chunks = 0


def start_of(visitor: int) -> dict[str, Any]:
    """A start world of the gallery."""
    return json.loads((GALLERY / "gallery.json").read_text())[visitor]


def wish(visitor: int, *, max_chunks: int | None = CHUNKS) -> Enter:
    """Its world, with pixels as they are."""
    start = start_of(visitor)
    image = (GALLERY / start["file"]).read_bytes()
    return Enter(
        prompt=start["prompt"],
        image=image,
        seed=start["seed"],
        format="raw",
        max_chunks=max_chunks,
    )


def alone(visitor: int, began: int) -> list[bytes]:
    """The pictures of the same walk in this process, with nobody beside it."""
    start = start_of(visitor)
    picture = np.asarray(Image.open(GALLERY / start["file"]).convert("RGB"))
    still: tuple[tuple[Action, ...], ...] = ((),)
    controls = (still * began + SCRIPTS[visitor] + still * CHUNKS)[:CHUNKS]
    loaded = worldline.load("pocket", threads=1)
    with loaded.start(picture, start["prompt"], start["seed"]) as session:
        chunks = [session.step([keys]).frames for keys in controls]
    return [picture.tobytes() for chunk in chunks for picture in chunk]


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    handle = WorkerHandle.spawn(WorkerSettings(model="pocket", threads=1))
    yield handle
    handle.shutdown()


def walk(port: int, visitor: int, walks: dict[int, Walk], seated: threading.Barrier) -> None:
    """One visitor from hello to goodbye."""
    mine = walks[visitor]
    with open_socket(port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(wish(visitor))
        client.until(Seat)
        seated.wait(60)
        client.until(Opened)
        client.say(Script(id=1, frames=SCRIPTS[visitor]))
        while not isinstance(message := client.next(), Bye):
            if isinstance(message, Frame):
                mine.pictures[message.number] = message.payload
            elif isinstance(message, Applied):
                mine.began = message.chunk
            elif isinstance(message, Chunk):
                mine.chunks += 1
                assert message.stages["denoise"] > 0
        assert message.code == "complete"


def wait_in_line(port: int, places: list[int]) -> None:
    """A third visitor: is told the place, and enters when one leaves."""
    with open_socket(port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(wish(0, max_chunks=1))
        places.append(client.until(Queued).position)
        client.until(Seat)
        client.until(Frame)
        client.until(Bye)


def test_two_worlds_and_a_visitor_in_line(worker: WorkerHandle) -> None:
    walks = {0: Walk(), 1: Walk()}
    places: list[int] = []
    seated = threading.Barrier(3)
    with LiveServer(worker, seats=2) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        visits = [
            threading.Thread(target=walk, args=(server.port, visitor, walks, seated))
            for visitor in walks
        ]
        for visit in visits:
            visit.start()
        seated.wait(60)
        wait_in_line(server.port, places)
        for visit in visits:
            visit.join(240)
    assert places == [1]
    for visitor, mine in walks.items():
        assert mine.chunks == CHUNKS
        expected = alone(visitor, mine.began)
        assert set(mine.pictures) == set(range(len(expected)))
        for number, picture in enumerate(expected):
            assert mine.pictures[number] == picture, (visitor, number, mine.began)


def test_a_world_outlives_its_connection(worker: WorkerHandle) -> None:
    with LiveServer(worker, seats=1) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as connection:
            client = Client(connection)
            client.say(Hello())
            client.say(wish(0, max_chunks=None))
            seat = client.until(Seat)
            client.until(Opened)
            client.say(Keys(id=1, held=("w",)))
            client.until(Received)
            while not (last := client.until(Frame)).input:
                pass
        with open_socket(server.port) as connection:
            client = Client(connection)
            client.say(Hello())
            client.say(Rejoin(token=seat.token, format="raw"))
            again = client.until(Seat)
            assert again.world == seat.world
            opened = client.until(Opened)
            assert opened.controls and opened.first_frame >= last.number
            while client.until(Frame).chunk < last.chunk + 2:  # it goes on
                pass
            client.say(Keys(id=1, held=("s",)))  # a refreshed page counts from 1 again
            assert client.until(Applied).id == 1
