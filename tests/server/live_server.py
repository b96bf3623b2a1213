"""The server as it is run, on a port of its own: uvicorn in a thread, and a blocking client."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from types import TracebackType
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fakes import LIMIT_S
from tests.server.old_client import Message, OldClient
from tests.server.sockets import ENDPOINT, event
from worldline.core.config import ServerConfig
from worldline.runtime.handle import EngineHandle
from worldline.server.app import create_app
from worldline.server.serve import make_server
from worldline.server.warmup import Revivals


class LiveServer:
    """Serves `handle` on 127.0.0.1 while the context is open."""

    def __init__(
        self, handle: EngineHandle, *, revivals: Revivals | None = None, **settings: Any
    ) -> None:
        self.handle = handle
        config = ServerConfig(**settings)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.app = create_app(config, handle, revivals=revivals)
        self._server = make_server(config, self.app)
        run = {"sockets": [self._listener]}
        self._thread = threading.Thread(target=self._server.run, kwargs=run)

    def client(self) -> Client:
        """A new connection."""
        return Client(self.port)

    def signal(self, number: int) -> None:
        """What a signal to the process would do."""
        self._server.handle_exit(number, None)

    def stop(self) -> None:
        """End the server as Ctrl-C does, and wait for it."""
        self._server.should_exit = True
        self.wait()

    def wait(self) -> None:
        """Until the server has ended."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def __enter__(self) -> LiveServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._listener.close()


class Client:
    """An old client on a real socket; connects when its context is entered."""

    def __init__(self, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}{ENDPOINT}"
        self._stack = contextlib.ExitStack()
        self._old = OldClient()

    def __enter__(self) -> Client:
        connection = connect(self._url, max_size=None, compression=None)
        self.socket: ClientConnection = self._stack.enter_context(connection)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def send(self, message: Any) -> None:
        """Send a map as MessagePack."""
        self.socket.send(msgspec.msgpack.encode(message))

    def next(self) -> Message:
        """The next thing the old client would see."""
        while True:
            data = self.socket.recv(timeout=LIMIT_S)
            assert isinstance(data, bytes), data
            seen = self._old.feed(data)
            if seen is not None:
                return seen

    def chunk(self) -> list[Message]:
        """All messages of one chunk; the stats are the last."""
        messages = [self.next()]
        while messages[-1].type != "chunk_stats":
            assert messages[-1].type == "frame_batch", messages[-1]
            messages.append(self.next())
        return messages

    def digest(self) -> str:
        """A hash of all frames of the next chunk, and of its index."""
        *batches, stats = self.chunk()
        seen = hashlib.sha256(str(stats.fields["chunk_index"]).encode())
        for batch in batches:
            seen.update(batch.payload or b"")
        return seen.hexdigest()

    def error(self) -> dict[str, Any]:
        """The next message, which is an error."""
        message = self.next()
        assert message.type == "error", message
        return message.fields

    def everything_sent_was_read(self) -> None:
        """Messages are read in order: once this is refused, all before it have had their effect."""
        self.send(event("are you there?", None))
        assert self.error()["content"] == "invalid event"

    def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame, which is next."""
        try:
            data = self.socket.recv(timeout=LIMIT_S)
        except ConnectionClosed as end:
            assert end.rcvd is not None, "the connection broke without a close frame"
            return end.rcvd.code, end.rcvd.reason
        raise AssertionError(f"expected a close frame, got {data[:60]!r}")

    def last_code(self) -> int:
        """Read whatever is still on its way, up to the close frame; its code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.socket.recv(timeout=LIMIT_S)
        code = self.socket.close_code
        assert code is not None
        return code
