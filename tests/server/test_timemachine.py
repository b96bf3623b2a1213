"""The time machine over real sockets, for both dialects, without a model: a fake engine."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fakes import LIMIT_S, FakeHandle
from tests.server.live.calling import Client, open_socket
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live.wire import wish
from tests.server.live_server import Client as OldSocket
from tests.server.live_server import LiveServer
from tests.server.sockets import init
from tests.worlds import walked
from worldline.core.live.client import Branch, Enter, Hello, Keys, Leave, Rejoin, Rewind, Save
from worldline.core.live.server import (
    Applied,
    Branched,
    Chunk,
    Failure,
    Frame,
    Moment,
    Notice,
    Opened,
    Rewound,
    Saved,
    Seat,
)
from worldline.core.motion import Motion
from worldline.core.walk import Run, Walk
from worldline.core.worldfile import read_world, write_world

SEED = 77


@pytest.fixture
def handle() -> FakeHandle:
    return FakeHandle()


@pytest.fixture
def server(handle: FakeHandle, tmp_path: Path) -> Generator[LiveServer]:
    folder = str(tmp_path / "snapshots")
    with LiveServer(handle, seats=2, snapshots_dir=folder, grace_s=30.0) as running:
        wait_for(lambda: get(running.port, "/readyz")[0] == 200, "never ready")
        yield running
    handle.nothing_is_left()


def post(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of a request that changes something."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request("POST", path, body or b"", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Status and bytes of a file."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def enter(client: Client, **fields: object) -> Seat:
    """Hello, enter, opened."""
    client.say(Hello())
    client.say(wish(seed=SEED, **({"format": "raw"} | fields)))
    seat = client.until(Seat)
    client.until(Opened)
    return seat


def pictures(client: Client, place: int) -> list[bytes]:
    """The pictures of the next chunk that stands at `place` of the walk."""
    seen: dict[int, list[bytes]] = {}
    while True:
        message = client.next()
        if isinstance(message, Frame):
            seen.setdefault(message.chunk, []).append(message.payload)
        if isinstance(message, Chunk) and message.place == place:
            return seen[message.index]
        assert not isinstance(message, Failure), message


def test_a_visitor_goes_back_and_sees_the_same_again(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client, lead_ms=0)
        first = pictures(client, 1)
        client.until(Moment)
        client.say(Rewind(id=1, chunk=1))
        back = client.until(Rewound)
        assert (back.chunk, back.prompt) == (1, "a lake")
        assert pictures(client, 1) == first
        client.say(Leave())


def test_a_branch_is_a_world_of_its_own(server: LiveServer, handle: FakeHandle) -> None:
    with open_socket(server.port) as one, open_socket(server.port) as two:
        client, other = Client(one), Client(two)
        seat = enter(client, lead_ms=0)
        second = pictures(client, 2)
        client.say(Branch(id=1, chunk=2))
        told = client.until(Branched)
        assert (told.id, told.chunk) == (1, 2)
        assert told.world != seat.world
        assert told.url == f"/#rejoin={told.token}"
        other.say(Hello())
        other.say(Rejoin(token=told.token, format="raw"))
        assert other.until(Seat).world == told.world
        opened = other.until(Opened)
        assert (opened.controls, opened.seed, opened.first_frame) == (True, SEED, 0)
        assert pictures(other, 2) == second
        client.until(Chunk)
        client.say(Branch(id=2))
        while not isinstance(message := client.next(), Failure):
            pass
        assert (message.id, message.code, message.fatal) == (2, "capacity", False)
        other.say(Save(id=1))
        saved = other.until(Saved)
        file = read_world(fetch(server.port, saved.url)[1])
        assert (file.start.seed, file.walk.chunks) == (SEED, saved.chunks)
        other.say(Leave())
        client.say(Leave())


def test_a_branch_that_nobody_comes_for_ends(handle: FakeHandle) -> None:
    with LiveServer(handle, seats=2, grace_s=0.2) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as connection:
            client = Client(connection)
            enter(client)
            client.say(Branch(id=1))
            name = client.until(Branched).world
            wait_for(lambda: name not in handle.sessions, "the branch stayed")
            client.say(Branch(id=2))  # its seat is free again
            assert client.until(Branched).world != name
            client.say(Leave())
    handle.nothing_is_left()


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"worlds_per_client": 1}, "client_limit"), ({"grace_s": 0}, "invalid_config")],
)
def test_where_there_may_be_no_branch(
    handle: FakeHandle, settings: dict[str, Any], code: str
) -> None:
    with LiveServer(handle, seats=2, **settings) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as connection:
            client = Client(connection)
            enter(client)
            client.say(Branch(id=1))
            while not isinstance(message := client.next(), Failure):
                pass
            assert (message.id, message.code) == (1, code)
            client.say(Leave())
    handle.nothing_is_left()


def test_a_saved_world_is_walked_into_again(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client, lead_ms=0)
        client.say(Keys(id=1, held=("w",)))
        client.until(Applied)
        client.say(Save(id=2))
        saved = client.until(Saved)
        assert (saved.id, saved.url.startswith("/v1/worlds/")) == (2, True)
        client.say(Leave())
    status, data = fetch(server.port, saved.url)
    assert (status, len(data)) == (200, saved.bytes)
    file = read_world(data)
    assert file.start.picture == wish().image
    assert fetch(server.port, saved.url.replace(".wl", "0.wl"))[0] == 404
    digests = [step.digest for step in file.chunks()]
    assert len(digests) == saved.chunks and all(digests)
    with open_socket(server.port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(Enter(world=data, format="raw", lead_ms=0))
        client.until(Seat)
        assert client.until(Opened).seed == SEED
        for place in range(saved.chunks):
            pictures(client, place)
        client.say(Save(id=1))
        again = read_world(fetch(server.port, client.until(Saved).url)[1])
        assert [step.digest for step in again.chunks()][: saved.chunks] == digests
        client.say(Leave())
    with open_socket(server.port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(Enter(world=data, at_end=True, format="raw"))
        assert client.until(Opened).first_frame == 0
        assert client.until(Chunk).place == saved.chunks
        client.say(Leave())


def test_a_file_of_another_model_says_so(server: LiveServer, handle: FakeHandle) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client)
        client.until(Chunk)
        client.say(Save(id=1))
        data = fetch(server.port, client.until(Saved).url)[1]
        client.say(Leave())
    file = read_world(data)
    other = write_world(replace(file, made=replace(file.made, weights="others", torch="1")))
    with open_socket(server.port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(Enter(world=other))
        notice = client.until(Notice)
        assert notice.code == "other_model"
        assert notice.message.startswith("weights was others, here fake")
        client.say(Leave())


def refused(server: LiveServer, data: bytes, **fields: Any) -> Failure:
    """What a file is answered with; the connection stays."""
    with open_socket(server.port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(Enter(world=data, **fields))
        while not isinstance(message := client.next(), Failure):
            pass
        assert not message.fatal
        return message


def test_files_that_cannot_be_walked_into_are_refused(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        client = Client(connection)
        enter(client)
        client.until(Chunk)
        client.say(Save(id=1))
        good = fetch(server.port, client.until(Saved).url)[1]
        client.say(Leave())
    file = read_world(good)
    start = file.start
    assert refused(server, b"").code == "world_damaged"
    assert refused(server, good[:-1]).code == "world_damaged"
    assert refused(server, good[:99] + b"!" + good[100:]).code == "world_damaged"
    assert refused(server, walked().encode()).code == "invalid_world"  # of another size
    wrong = {
        "chunk": replace(start, chunk=4096),
        "steps": replace(start, steps=900),
        "picture": replace(start, picture=b"no picture"),
        "window": replace(start, window=60_000),
    }
    empty = Walk(chunks=0, runs=())
    codes = {
        name: refused(server, write_world(replace(file, start=one, walk=empty))).code
        for name, one in wrong.items()
    }
    long = Walk(chunks=5000, runs=(Run(3 * 5000, Motion()),))
    endless = write_world(replace(file, walk=long))
    assert refused(server, endless, at_end=True).expected == "at most 3600 s"
    assert codes["picture"] == "invalid_image"
    assert codes["window"] == "invalid_config"
    assert codes["steps"] == "invalid_world"
    assert codes["chunk"] == "invalid_world"


def names(server: LiveServer) -> tuple[list[str], list[str]]:
    """Worlds and mainline sessions."""
    told = get(server.port, "/admin/worlds")[1]
    return [world["world"] for world in told["worlds"]], told["sessions"]


@pytest.mark.parametrize("dialect", ["live", "mainline"])
def test_administrators_ask_a_session_of_either_dialect(
    server: LiveServer, handle: FakeHandle, dialect: str
) -> None:
    if dialect == "live":
        with open_socket(server.port) as connection:
            client = Client(connection)
            world = enter(client, lead_ms=0).world
            pictures(client, 2)
            asked_everything(server, handle, world)
            assert client.until(Rewound).chunk == 1  # everybody in it is told
            client.say(Leave())
        return
    with server.client() as old:
        old.send(init(seed=SEED))
        for _ in range(3):
            old.chunk()
        wait_for(lambda: bool(names(server)[1]), "no session")
        with read_on(old):
            asked_everything(server, handle, names(server)[1][0])


@contextmanager
def read_on(client: OldSocket) -> Generator[None]:
    """Read what an old client is sent, in a thread, so that its session goes on."""
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            client.chunk()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LIMIT_S)


def asked_everything(server: LiveServer, handle: FakeHandle, world: str) -> None:
    path = f"/admin/worlds/{world}"
    assert post(server.port, f"{path}/rewind", {"chunk": 1})[1]["chunk"] == 1
    assert post(server.port, f"{path}/rewind", {"seconds": 1e9})[1]["chunk"] == 0
    assert post(server.port, f"{path}/rewind", {})[1]["code"] == "invalid_control"
    assert post(server.port, f"{path}/rewind", {"chunk": 10**6})[0] == 400
    assert post(server.port, f"{path}/rewind", {"chunk": -1})[0] == 400
    assert post(server.port, f"{path}/rewind", {"chunks": 1})[0] == 400
    assert post(server.port, f"{path}/branch", {"seconds": 1.0})[0] == 400
    assert post(server.port, f"{path}/restore", b'{"path": "\xff"}')[0] == 400  # no text
    assert post(server.port, f"{path}/rewind", b"[" * 9000)[0] == 400
    assert post(server.port, "/admin/worlds/nobody/save")[0] == 404
    status, saved = post(server.port, f"{path}/save")
    assert status == 200
    assert read_world(fetch(server.port, saved["url"])[1]).walk.chunks == saved["chunks"]
    status, snapshot = post(server.port, f"{path}/snapshot")
    assert status == 200, snapshot
    assert Path(snapshot["path"]).stat().st_size == snapshot["bytes"]
    status, back = post(server.port, f"{path}/restore", {"path": snapshot["path"]})
    assert (status, back["chunk"]) == (200, snapshot["chunk"]), back
    assert post(server.port, f"{path}/restore", {"path": "/etc/passwd"})[0] == 400
    assert post(server.port, f"{path}/restore")[0] == 400
    Path(snapshot["path"]).write_bytes(b"changed")
    assert post(server.port, f"{path}/restore", {"path": snapshot["path"]})[0] == 400
    assert post(server.port, f"{path}/rewind", {"seconds": 0})[0] == 200  # it is there all the same
    status, branch = post(server.port, f"{path}/branch")
    assert (status, set(branch)) == (200, {"world", "token", "url", "chunk"})
    with open_socket(server.port) as connection:
        client = Client(connection)
        client.say(Hello())
        client.say(Rejoin(token=branch["token"]))
        assert client.until(Seat).world == branch["world"]
        assert client.until(Chunk).place == branch["chunk"]
        client.say(Leave())


def test_a_mainline_session_goes_on_in_the_next_worker(handle: FakeHandle) -> None:
    handle.reviving = True
    seen: list[str] = []
    for dies in (False, True):
        with LiveServer(handle, seats=1) as server:
            wait_for(lambda port=server.port: get(port, "/readyz")[0] == 200, "never ready")
            with server.client() as old:
                old.send(init(seed=SEED, max_chunks=6))
                digests = [old.digest(), old.digest()]
                if dies:
                    handle.die()
                    handle.sessions.clear()
                    time.sleep(0.05)
                    handle.dead = False
                digests += [old.digest() for _ in range(4)]
            seen.append("".join(digests))
    assert seen[0] == seen[1]
    handle.nothing_is_left()
