"""Two replicas behind one server: their worlds are made at the same time, and neither waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
from websockets.sync.client import connect

from tests.fakes import FakeHandle
from tests.server.live.wire import ENDPOINT, wish
from tests.server.live_server import LiveServer
from tests.server.test_stuck import begun
from worldline.core.live import SUBPROTOCOL
from worldline.core.live.client import Hello
from worldline.runtime.contract import EngineHandle
from worldline.runtime.replicas import Replicas

# The warm-up is one step of one session on each of them.
SETTINGS: dict[str, Any] = {"shutdown_s": 0.2, "drain_s": 0.1, "warmup_chunks": 1, "seats": 2}


def test_worlds_of_two_replicas_are_made_at_the_same_time() -> None:
    fakes = [FakeHandle(), FakeHandle()]
    for fake in fakes:
        fake.hold()
        fake.allow(1)
    coming = iter(fakes)

    def make(revived: Callable[[], None]) -> EngineHandle:
        return next(coming)

    with LiveServer(Replicas([make, make]), **SETTINGS) as server, ExitStack() as sockets:
        for fake in fakes:
            begun(fake, 1)
        url = f"ws://127.0.0.1:{server.port}{ENDPOINT}"
        for _ in fakes:
            socket = sockets.enter_context(connect(url, subprotocols=[SUBPROTOCOL]))  # pyright: ignore
            for message in (Hello(), wish()):
                socket.send(msgspec.msgpack.encode(message))
        for fake in fakes:  # none of them is ever allowed: one device would let in one
            begun(fake, 1)
            assert len(fake.sessions) == 1
    for fake in fakes:
        fake.nothing_is_left()
