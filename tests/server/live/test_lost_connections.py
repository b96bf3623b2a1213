"""One world, a hundred connections killed at random: it is still there, and no key is stuck."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.fakes import FakeHandle
from tests.server.live.calling import Client, open_socket
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live.wire import wish
from tests.server.live_server import LiveServer
from worldline.core.live.client import Hello, Keys, Pad, Pause, Ping, Pointer, Rejoin, Resume
from worldline.core.live.server import Chunk, Opened, Pong, Seat
from worldline.core.motion import MOTIONLESS
from worldline.server.live.house import House

LIVES = 100
LOOK_EVERY = 20  # lives, to see what a chunk without a hand is made of
SEED = 77
_RESET = struct.pack("ii", 1, 0)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def fumble(client: Client, dice: random.Random) -> None:
    """Some presses, never a release; some of them are still on their way when the line is cut."""
    for number in range(1, dice.randrange(1, 9)):
        what = dice.randrange(5)
        if what < 3:
            client.say(Keys(id=number, held=("w", "l")))
        elif what == 3:
            client.say(Pad(id=number, z=1.0))
        else:
            client.say(Pointer(id=number, yaw=30.0))
        if dice.random() < 0.2:
            client.say(Ping(at_ms=1))
            client.until(Pong)
    if dice.random() < 0.1:
        client.say(Pause(id=50))
        client.say(Resume(id=51))


def cut(client: Client, dice: random.Random) -> None:
    """End the connection without a goodbye, in the middle of a message if need be."""
    raw = client.connection.socket
    how = dice.randrange(3)
    with contextlib.suppress(OSError):
        if how == 0:
            raw.sendall(b"\x82\xfe\x10\x00" + dice.randbytes(dice.randrange(90)))
        elif how == 1:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raw.shutdown(socket.SHUT_RD if how == 1 else socket.SHUT_RDWR)


def nothing_is_held(client: Client, handle: FakeHandle) -> None:
    """Two whole chunks from now: nobody has pressed anything, so the camera stands."""
    now = client.until(Chunk).index
    while (chunk := client.until(Chunk)).index < now + 2:
        pass
    assert chunk.input == 0
    mine = [request for request in handle.requests if request.session_id not in _warm(handle)]
    assert mine[chunk.index].motions == (MOTIONLESS,) * 3, chunk.index


def _warm(handle: FakeHandle) -> set[str]:
    return {request.session_id for request in handle.opened if request.seed != SEED}


def test_a_world_outlives_a_hundred_connections() -> None:
    dice, handle, token = random.Random(9), FakeHandle(), ""
    with LiveServer(handle, seats=1) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        house: House = server.app.state.house
        numbers: list[int] = []
        for life in range(LIVES + 1):
            with contextlib.suppress(ConnectionClosed, OSError), open_socket(server.port) as line:
                client = Client(line)
                client.say(Hello())
                client.say(Rejoin(token=token) if token else wish(seed=SEED))
                seat: Any = client.until(Seat)
                opened = client.until(Opened)
                assert opened.controls, life
                token = seat.token
                numbers.append(opened.first_frame)
                if life % LOOK_EVERY == 0:
                    nothing_is_held(client, handle)
                fumble(client, dice)
                cut(client, dice)
        assert len(numbers) == LIVES + 1
        assert numbers == sorted(numbers)  # the same world, going on
        assert len(house.rooms) == 1
        assert len([request for request in handle.opened if request.seed == SEED]) == 1
    handle.nothing_is_left()
