"""kill -9 of the worker under two live worlds: both go on, little is repeated, nothing is left.

Packaged weights, a worker process that is replaced, real sockets. WORLDLINE_KILLS sets how often
the worker is killed, at moments drawn from WORLDLINE_KILL_SEED.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

import worldline
from tests.runtime.fake_engine import shared_names
from tests.server.live.calling import Client, open_socket
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live_server import LiveServer
from tests.server.test_timemachine import fetch
from worldline.core.chunk import PICTURES
from worldline.core.live.client import Enter, Hello, Keys, Leave, Save
from worldline.core.live.server import Chunk, Frame, Notice, Opened, Saved, Seat
from worldline.core.tape import tape
from worldline.core.walk import WorldFile, frames_digest
from worldline.core.worldfile import read_world
from worldline.media.image import decode_image
from worldline.models.pocket import params as pocket
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import WorkerSettings
from worldline.runtime.supervisor import SupervisedHandle
from worldline.server.warmup import Revivals

GALLERY: Final = Path(pocket.__file__).with_name("gallery")
KILLS: Final = int(os.environ.get("WORLDLINE_KILLS", "1"))
SEED: Final = int(os.environ.get("WORLDLINE_KILL_SEED", "7"))
PER_KILL_S: Final = 40
SETTINGS: Final = WorkerSettings(model="pocket", threads=1)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + KILLS * PER_KILL_S)]


class Visit(threading.Thread):
    """Walks in one world of the gallery until told to stop; keeps what it saw."""

    def __init__(self, port: int, visitor: int) -> None:
        super().__init__(name=f"visitor-{visitor}")
        self.port, self.visitor = port, visitor
        self.numbers: list[int] = []
        self.pictures: dict[int, list[bytes]] = {}  # by chunk, as it was made
        self.chunks: list[Chunk] = []
        self.notices: list[str] = []
        self.file: WorldFile | None = None
        self.error: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        """Enter, walk, save, leave."""
        try:
            with open_socket(self.port) as connection:
                self.walk(Client(connection, limit_s=PER_KILL_S))
        except BaseException as error:
            self.error = error

    def walk(self, client: Client) -> None:
        start = json.loads((GALLERY / "gallery.json").read_text())[self.visitor]
        image = (GALLERY / start["file"]).read_bytes()
        client.say(Hello())
        client.say(
            Enter(
                prompt=start["prompt"], image=image, seed=start["seed"], format="raw", lead_ms=500
            )
        )
        client.until(Seat)
        client.until(Opened)
        client.say(Keys(id=1, held=("w", "l") if self.visitor else ("w",)))
        while not self.stop.is_set() or self.notices.count("recovering") > self.recovered:
            self.hear(client.next())
        client.say(Save(id=2))
        while not isinstance(message := client.next(), Saved):
            self.hear(message)
        self.file = read_world(fetch(self.port, message.url)[1])
        while len(self.chunks) < message.chunks:  # the last may still be on their way
            self.hear(client.next())
        client.say(Leave())

    @property
    def recovered(self) -> int:
        return self.notices.count("recovered")

    def hear(self, message: Any) -> None:
        if isinstance(message, Frame):
            self.numbers.append(message.number)
            self.pictures.setdefault(message.chunk, []).append(message.payload)
        elif isinstance(message, Chunk):
            self.chunks.append(message)
        elif isinstance(message, Notice):
            self.notices.append(message.code)


@contextmanager
def supervised() -> Generator[tuple[LiveServer, SupervisedHandle]]:
    """A server whose worker is replaced at once when it dies."""
    revivals = Revivals()
    first = WorkerHandle.spawn(SETTINGS)
    handle = SupervisedHandle(
        first, lambda: WorkerHandle(SETTINGS), pause=lambda _: False, on_restart=revivals.tell
    )
    try:
        patient = {"heartbeat_s": 0, "idle_lease_s": 0, "max_lifetime_s": 0}
        with LiveServer(handle, revivals=revivals, warmup_chunks=1, seats=2, **patient) as server:
            wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
            yield server, handle
    finally:
        handle.shutdown()


def kill(handle: SupervisedHandle) -> None:
    """As the system does when memory is short."""
    os.kill(handle._now.pid, signal.SIGKILL)


def recovered(visits: list[Visit], times: int) -> None:
    """Wait until every world goes on again; a worker loads for some seconds."""
    end = time.monotonic() + PER_KILL_S
    while not all(visit.recovered == times for visit in visits):
        assert time.monotonic() < end, [visit.notices for visit in visits]
        assert not any(visit.error for visit in visits), [visit.error for visit in visits]
        time.sleep(0.02)


def grown(visits: list[Visit], than: list[int]) -> bool:
    """Whether every visitor has seen more chunks."""
    return all(len(visit.chunks) >= count for visit, count in zip(visits, than, strict=True))


def replayed(file: WorldFile) -> list[bytes]:
    """The digests of the same walk in this process, with nobody beside it."""
    loaded = worldline.load("pocket", threads=1)
    start = file.start
    picture = decode_image(start.picture)
    with loaded.start(picture, start.prompt, start.seed) as session:
        return [frames_digest(session.step(motions).frames) for motions in tape(file)]


def check(visit: Visit, kills: int) -> None:
    """Both worlds went on, nothing was lost, and at most a chunk was repeated each time."""
    assert visit.error is None, visit.error
    assert visit.notices == ["recovering", "recovered"] * kills
    file = visit.file
    assert file is not None
    places = [chunk.place for chunk in visit.chunks]
    assert places == list(range(len(places)))
    assert visit.numbers == list(range(len(visit.numbers)))
    seen = sum(map(len, visit.pictures.values()))
    made = sum(chunk.frames for chunk in visit.chunks)
    chunk = PICTURES * file.start.chunk
    assert seen - made <= (kills + 1) * chunk  # a chunk a kill, and the one that was on its way
    digests = [step.digest for step in file.chunks()]
    exact = [digest for digest in digests if digest]  # those before a rescue by the window alone
    assert exact and exact == replayed(file)[: len(exact)]
    assert all(digests[: len(exact)])


def test_worlds_outlive_their_workers() -> None:
    chance = random.Random(SEED)
    before = shared_names()
    with supervised() as (server, handle):
        visits = [Visit(server.port, visitor) for visitor in (0, 1)]
        for visit in visits:
            visit.start()
        for number in range(1, KILLS + 1):
            goes_on = [len(visit.chunks) + 2 for visit in visits]
            wait_for(lambda than=goes_on: grown(visits, than), "the worlds stand still")
            time.sleep(chance.uniform(0.0, 1.0))
            kill(handle)
            recovered(visits, number)
        for visit in visits:
            visit.stop.set()
        for visit in visits:
            visit.join(60)
            assert not visit.is_alive()
        wait_for(lambda: get(server.port, "/admin/worlds")[1]["worlds"] == [], "worlds stayed")
        wait_for(lambda: get(server.port, "/admin/leaks")[0] == 200, "something is left")
        status, body = fetch(server.port, "/metrics")
        assert status == 200
        assert f"worldline_recovered_total {2 * KILLS}.0" in body.decode()
        assert handle.counts().sessions == 0
    for visit in visits:
        check(visit, KILLS)
    assert shared_names() == before
