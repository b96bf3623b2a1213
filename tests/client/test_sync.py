"""The blocking SDK over a real socket, against a small server that speaks the dialect."""

from __future__ import annotations

import threading
from collections.abc import Generator

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.client.peer import OPENED, SEAT, frame, picture, ready
from tests.fakes import LIMIT_S
from worldline.client import Client, ConnectionLostError
from worldline.core.errors import SessionClosedError
from worldline.core.live import SUBPROTOCOL, ClientMessage, ServerMessage
from worldline.core.live.client import Enter, Hello, Keys, Leave, Ping, Rejoin
from worldline.core.live.server import Applied, Bye, Pong, Received


class TinyServer:
    """One world of grey frames; a frame follows every key. `breaks` connections are cut once."""

    def __init__(self) -> None:
        self.number = 0
        self.newest = 0
        self.breaks = 0
        self.held: list[tuple[str, ...]] = []
        self.rejoined = 0

    def __call__(self, socket: ServerConnection) -> None:
        """Serve one connection."""
        decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
        try:
            for data in socket:
                assert isinstance(data, bytes)
                for answer in self._answer(decoder.decode(data)):
                    socket.send(msgspec.msgpack.encode(answer))
                if self.breaks and self.newest:
                    self.breaks -= 1
                    socket.socket.shutdown(2)
        except ConnectionClosed:
            pass

    def _answer(self, message: ClientMessage) -> list[ServerMessage]:
        match message:
            case Hello():
                return [ready()]
            case Enter() | Rejoin():
                self.rejoined += isinstance(message, Rejoin)
                return [SEAT, OPENED, self._frame()]
            case Keys(id=number, held=held):
                self.held.append(held)
                self.newest = number
                applied = Applied(id=number, chunk=0, latent_frame=0, server_ms=1.0)
                return [Received(id=number, server_ms=0.0), applied, self._frame()]
            case Ping(at_ms=at_ms):
                return [Pong(at_ms=at_ms, server_ms=at_ms)]
            case Leave():
                return [Bye(code="left", message="")]
            case _:
                return []

    def _frame(self) -> ServerMessage:
        self.number += 1
        return frame(self.number, input=self.newest, shade=self.number)


@pytest.fixture
def tiny() -> Generator[tuple[TinyServer, str]]:
    """A server on a free port."""
    worlds = TinyServer()
    with serve(worlds, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield worlds, f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_walking_by_a_loop(tiny: tuple[TinyServer, str]) -> None:
    worlds, url = tiny
    with Client(url).world(picture(), "a lake") as world:
        seen = []
        for picture_ in world.frames():
            seen.append(picture_)
            if len(seen) == 3:
                break
            receipt = world.press("wd"[len(seen) - 1])
            assert world.applied(receipt, LIMIT_S).applied is not None
        assert [p.number for p in seen] == [1, 2, 3]
        assert [p.input for p in seen] == [0, 1, 2]
        with world.hold("j"):
            pass
        assert world._repr_html_().startswith("<div><img")  # pyright: ignore[reportPrivateUsage]
    assert worlds.held == [("w",), ("w", "d"), ("w", "d", "j"), ("w", "d")]
    assert world.state == "closed"
    with pytest.raises(SessionClosedError):
        world.press("w")


def test_a_cut_connection_goes_on(tiny: tuple[TinyServer, str]) -> None:
    worlds, url = tiny
    worlds.breaks = 1
    with Client(url).world(picture(), "a lake") as world:
        frames = world.frames()
        next(frames)
        world.press("w")
        while world.reconnects == 0:
            next(frames)
        world.press("w")  # nothing is held after a loss: it is said again
        while next(frames).input < 2:
            pass
    assert worlds.held == [("w",), ("w",)]
    assert worlds.rejoined == 1


def test_nobody_there_is_one_clear_error() -> None:
    with pytest.raises(ConnectionLostError, match="does not answer"):
        Client("http://127.0.0.1:9").world(picture(), "a lake").open()


def test_threads_end_with_their_worlds(tiny: tuple[TinyServer, str]) -> None:
    _, url = tiny
    with Client(url).world(picture(), "a lake") as world:
        next(world.frames())
        assert any(t.name == "worldline-client" for t in threading.enumerate())
    assert not any(t.name == "worldline-client" for t in threading.enumerate())
