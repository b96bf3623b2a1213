"""Connections that begin and end anywhere: real sockets, a worker process, shared memory.

1,000 in CI; `WORLDLINE_CONNECTIONS=10000` makes it as many as are asked for. With
`WORLDLINE_STALLED_S=600` one more stops reading for so long, and then reads on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fakes import LIMIT_S
from tests.runtime import fake_engine
from tests.server.live.wire import ENDPOINT, wish
from tests.server.live_server import LiveServer
from worldline.core.live import SUBPROTOCOL, ClientMessage, ServerMessage
from worldline.core.live.client import (
    AskControl,
    Hello,
    Keys,
    Leave,
    Pause,
    Ping,
    Playhead,
    Rejoin,
    Reset,
    Resume,
    Settings,
    Watch,
)
from worldline.core.live.server import Bye, Failure, Frame, Pong, Queued, Seat
from worldline.runtime.handle import WorkerHandle
from worldline.server.live.house import House
from worldline.server.services import Services

CONNECTIONS = int(os.environ.get("WORLDLINE_CONNECTIONS", "1000"))
STALLED_S = float(os.environ.get("WORLDLINE_STALLED_S", "0"))
PER_CONNECTION_S = 0.5  # beyond which the whole test is given up
_DECODER = msgspec.msgpack.Decoder(ServerMessage)
_ABORT = struct.pack("ii", 1, 0)  # close with a reset, and leave nothing to wait for


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    handle = WorkerHandle.spawn(fake_engine.settings())
    yield handle
    handle.shutdown()


class Visit:
    """One connection that says something, and then ends in some way."""

    def __init__(
        self,
        port: int,
        dice: random.Random,
        known: dict[str, str],
        *,
        reads_ahead: int | None = None,
    ) -> None:
        self._dice = dice
        self._known = known  # the newest world and token anybody was given
        url = f"ws://127.0.0.1:{port}{ENDPOINT}"
        opening = connect(
            url,
            subprotocols=[SUBPROTOCOL],  # pyright: ignore[reportArgumentType]
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=LIMIT_S,
            max_queue=reads_ahead,  # else it may stop reading, and waits in vain for the end
        )
        self._stack = contextlib.ExitStack()
        self.socket: ClientConnection = self._stack.enter_context(opening)

    def say(self, message: ClientMessage) -> None:
        """Send; a server that has said goodbye hears nothing."""
        with contextlib.suppress(ConnectionClosed):
            self.socket.send(msgspec.msgpack.encode(message))

    def hear(self, *kinds: type[Any]) -> Any:
        """Read up to a message of these kinds, or up to the end."""
        try:
            while True:
                data = self.socket.recv(timeout=LIMIT_S)
                message = _DECODER.decode(data if isinstance(data, bytes) else data.encode())
                if isinstance(message, Seat):
                    self._known["world"] = message.world
                    self._known["token"] = message.token or self._known.get("token", "")
                if isinstance(message, (*kinds, Bye, Failure)):
                    return message
        except ConnectionClosed:
            return None

    def come_in(self) -> None:
        """Enter a world, come back to one, or watch one."""
        what = self._dice.random()
        if what < 0.5 or not self._known:
            self.say(wish(image=self._dice.choice([wish().image, wish().image, b"broken"])))
        elif what < 0.8:
            self.say(Rejoin(token=self._known["token"]))
        else:
            self.say(Watch(world=self._known["world"]))

    def play(self) -> None:
        """A few messages, sensible and not."""
        for number in range(1, self._dice.randrange(2, 8)):
            self.say(self._anything(number))
            if self._dice.random() < 0.2:
                with contextlib.suppress(ConnectionClosed):
                    self.socket.send(self._dice.randbytes(self._dice.randrange(60)))
            if self._dice.random() < 0.2:
                self.listen()

    def listen(self) -> None:
        """Read what came so far: everything said before was dealt with."""
        self.say(Ping(at_ms=1))
        self.hear(Pong)

    def _anything(self, number: int) -> ClientMessage:
        say: list[Callable[[], ClientMessage]] = [
            lambda: Keys(id=number, held=("w",)),
            lambda: Keys(id=number, held=("d", "l")),
            lambda: Pause(id=number),
            lambda: Resume(id=number),
            lambda: Reset(id=number),
            lambda: Settings(id=number, format="raw", speed=0.5),
            lambda: AskControl(id=number),
            lambda: Playhead(frame=number, lead_ms=5, at_ms=1),
            lambda: Ping(at_ms=1),
            lambda: Hello(),
            lambda: wish(),
        ]
        return self._dice.choice(say)()

    def end(self) -> None:
        """Say goodbye, close, vanish, or be cut in the middle of a message."""
        how = self._dice.randrange(5)
        raw = self.socket.socket
        with contextlib.suppress(OSError, ConnectionClosed):
            if how == 0:
                self.say(Leave())
                self.hear(Bye)
            elif how == 1:
                raw.sendall(b"\x82\xfe\x10\x00" + self._dice.randbytes(90))  # of 4096 bytes
                raw.shutdown(socket.SHUT_RDWR)
            elif how == 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                raw.shutdown(socket.SHUT_RD)  # ends the thread that reads; closing resets
            elif how == 3:
                raw.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close politely, where it can be."""
        with contextlib.suppress(OSError, ConnectionClosed):
            self._stack.close()


def knock(port: int, dice: random.Random) -> None:
    """A connection that never becomes a WebSocket."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as raw:
        request = f"GET {ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\r\n"
        raw.sendall(request.encode()[: dice.randrange(len(request))])


def visit(port: int, dice: random.Random, known: dict[str, str]) -> None:
    """One connection, ended at a random point of the protocol."""
    steps = dice.randrange(7)
    if steps == 0:
        knock(port, dice)
        return
    guest = Visit(port, dice, known)
    if steps > 1:
        guest.say(Hello())
    if steps > 2:
        guest.come_in()
    if steps > 3:
        guest.hear(Seat, Queued)
    if steps > 4:
        guest.play()
    if steps > 5:
        guest.listen()
    guest.end()


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and JSON of a route."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until `condition`, or fail."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def descriptors() -> int:
    """Open files of this process, which is server and clients."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files on Linux")
@pytest.mark.timeout(120 + CONNECTIONS * PER_CONNECTION_S)
def test_connections_that_end_anywhere_leave_nothing(worker: WorkerHandle) -> None:
    dice = random.Random(2026)
    known: dict[str, str] = {}
    with LiveServer(worker, seats=3, grace_s=0.3, worlds_per_client=0, init_attempts=3) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        services: Services = server.app.state.services
        house: House = server.app.state.house

        def empty() -> bool:
            return not (house.rooms or house.guests or services.sockets.taken)

        for _ in range(10):  # what is opened once and kept
            visit(server.port, dice, known)
        wait_for(empty, "the first ones are still there")
        before = descriptors()
        for _ in range(CONNECTIONS):
            visit(server.port, dice, known)
        wait_for(empty, f"still there: {house.rooms}, {house.guests}, {services.sockets.taken}")
        assert services.seats.taken == 0
        assert house.waiting == 0
        assert worker.counts().sessions == 0
        assert fake_engine.shared_names() == set()
        status, found = get(server.port, "/admin/leaks")
        assert (status, set(found.values())) == (200, {0}), found
        wait_for(lambda: descriptors() <= before, f"{descriptors()} open files, were {before}")
        assert fresh_visitor(server.port)


@pytest.mark.slow
@pytest.mark.skipif(not STALLED_S, reason="takes as long as WORLDLINE_STALLED_S says")
@pytest.mark.timeout(120 + STALLED_S)
def test_a_reader_that_stalls_is_not_cut(worker: WorkerHandle) -> None:
    """It goes on to speak, so it is there; what it reads in the end begins with old pictures."""
    with LiveServer(worker, seats=1, idle_lease_s=0, max_lifetime_s=0) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        guest = Visit(server.port, random.Random(1), {}, reads_ahead=1)
        guest.say(Hello())
        guest.say(wish(format="raw"))
        assert isinstance(guest.hear(Frame), Frame)
        end = time.monotonic() + STALLED_S
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 5.0))
            guest.say(Ping(at_ms=1))
        guest.say(Ping(at_ms=2))
        pong = guest.hear(Pong)
        while isinstance(pong, Pong) and pong.at_ms != 2:
            pong = guest.hear(Pong)
        assert isinstance(pong, Pong), pong
        assert isinstance(guest.hear(Frame), Frame)
        guest.say(Leave())
        guest.close()


def fresh_visitor(port: int) -> bool:
    """Whether somebody new gets a world with pictures, as if nothing had been."""
    guest = Visit(port, random.Random(1), {})
    guest.say(Hello())
    guest.say(wish())
    seen = isinstance(guest.hear(Frame), Frame)
    guest.say(Leave())
    guest.hear(Bye)
    guest.close()
    return seen
