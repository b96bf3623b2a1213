"""Seats from the memory plan; and the server as its process sees it: sockets and signals."""

from __future__ import annotations

import signal
from collections.abc import Generator

import msgspec
import pytest

from tests.fakes import FakeHandle, fake_info
from tests.server.live.calling import Client, open_socket
from tests.server.live.conftest import Start
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live.wire import wish
from tests.server.live_server import LiveServer
from worldline.core.config import ServerConfig
from worldline.core.live import SUBPROTOCOL
from worldline.core.live.client import Hello, Leave
from worldline.core.live.server import Bye, Chunk, Failure, Frame, Notice, Opened, Seat
from worldline.server.services import seats_of

_GB = 2**30


@pytest.mark.parametrize(("budget", "seats"), [(0, 4), (80, 4), (56, 4), (55, 3), (35, 1), (10, 1)])
def test_seats_are_what_was_asked_for_and_what_fits(budget: int, seats: int) -> None:
    info = msgspec.structs.replace(
        fake_info(),
        weights_bytes=32 * _GB,
        session_bytes=5 * _GB,
        workspace_bytes=4 * _GB,
        budget_bytes=budget * _GB,
    )
    assert seats_of(ServerConfig(seats=4), info) == seats


@pytest.mark.anyio
async def test_the_plan_limits_who_gets_in(start: Start) -> None:
    info = msgspec.structs.replace(fake_info(), session_bytes=3, budget_bytes=4)
    rig = await start(FakeHandle(info), seats=2)
    await rig.connect().walk()
    assert (await rig.connect().queue()).position == 1


@pytest.fixture
def server() -> Generator[LiveServer]:
    with LiveServer(FakeHandle(), drain_s=3600.0) as running:
        wait_for(lambda: get(running.port, "/readyz")[0] == 200, "never ready")
        yield running


def test_a_real_socket_gets_pictures_and_receipts(server: LiveServer) -> None:
    with open_socket(server.port) as connection:
        assert connection.subprotocol == SUBPROTOCOL
        client = Client(connection)
        client.say(Hello())
        client.say(wish())
        client.until(Seat)
        opened = client.until(Opened)
        assert (opened.width, opened.height) == (64, 48)
        frame = client.until(Frame)
        assert frame.number == 0 and frame.payload
        assert client.until(Chunk).index == 0


def test_sigterm_is_announced_and_nobody_new_gets_in(server: LiveServer) -> None:
    with open_socket(server.port) as first:
        client = Client(first)
        client.say(Hello())
        client.say(wish())
        client.until(Opened)
        server.signal(signal.SIGTERM)
        assert client.until(Notice).code == "draining"
        assert get(server.port, "/readyz") == (503, {"status": "draining"})
        with open_socket(server.port) as second:
            late = Client(second)
            late.say(Hello())
            late.say(wish())
            error = late.until(Failure)
            assert (error.code, error.fatal) == ("draining", True)
        client.until(Frame)  # the world goes on
        client.say(Leave())
        assert client.until(Bye).code == "left"
        server.wait()  # nobody is left, so it does not take an hour


def test_ctrl_c_waits_for_nobody_and_says_so() -> None:
    with LiveServer(FakeHandle(), drain_s=3600.0) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as connection:
            client = Client(connection)
            client.say(Hello())
            client.say(wish())
            client.until(Opened)
            server.signal(signal.SIGINT)
            assert client.until(Bye).code == "stopped"
            server.wait()


def test_a_second_signal_ends_the_draining() -> None:
    with LiveServer(FakeHandle(), drain_s=3600.0) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as connection:
            client = Client(connection)
            client.say(Hello())
            client.say(wish())
            client.until(Opened)
            server.signal(signal.SIGTERM)
            assert client.until(Notice).code == "draining"
            server.signal(signal.SIGTERM)
            assert client.until(Bye).code == "stopped"
            server.wait()


def test_a_dead_worker_is_told_and_nobody_else_gets_in() -> None:
    handle = FakeHandle()
    with LiveServer(handle) as server:
        wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
        with open_socket(server.port) as first, open_socket(server.port) as second:
            client, late = Client(first), Client(second)
            client.say(Hello())
            client.say(wish())
            client.until(Frame)
            handle.die()
            error = client.until(Failure)
            assert (error.code, error.retryable, error.fatal) == ("worker_died", True, True)
            assert client.closed() == 4503
            late.say(Hello())
            late.say(wish())
            assert late.until(Failure).got == "the worker died"
