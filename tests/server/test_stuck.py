"""A worker that answers no more keeps no server from ending, whatever waits for it."""

from __future__ import annotations

import signal
from typing import Any

import msgspec
import pytest
from websockets.sync.client import connect

from tests.fakes import LIMIT_S, FakeHandle
from tests.server.live.wire import ENDPOINT, wish
from tests.server.live_server import LiveServer
from worldline.core.live import SUBPROTOCOL
from worldline.core.live.client import Hello

# The warm-up is one step of one session.
SETTINGS: dict[str, Any] = {"shutdown_s": 0.2, "drain_s": 0.1, "warmup_chunks": 1, "seats": 1}


def stuck_after(steps: int) -> FakeHandle:
    """An engine that never ends the step after so many."""
    handle = FakeHandle()
    handle.hold()
    if steps:
        handle.allow(steps)
    return handle


def begun(handle: FakeHandle, steps: int) -> None:
    """Wait until so many steps have begun."""
    for _ in range(steps):
        assert handle.entered.acquire(timeout=LIMIT_S), "no step has begun"


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGINT])
def test_a_live_world_in_a_step_that_never_ends(way: signal.Signals) -> None:
    handle = stuck_after(1)
    with LiveServer(handle, **SETTINGS) as server:
        url = f"ws://127.0.0.1:{server.port}{ENDPOINT}"
        with connect(url, subprotocols=[SUBPROTOCOL]) as socket:  # pyright: ignore
            for message in (Hello(), wish()):
                socket.send(msgspec.msgpack.encode(message))
            begun(handle, 2)
            server.signal(way)
            server.wait()
            assert handle.dead
    handle.nothing_is_left()


def test_a_warm_up_that_never_ends() -> None:
    handle = stuck_after(0)
    with LiveServer(handle, **SETTINGS) as server:
        begun(handle, 1)
        server.signal(signal.SIGTERM)
        server.wait()
        assert handle.dead
    handle.nothing_is_left()
