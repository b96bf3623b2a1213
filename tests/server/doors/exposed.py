"""A server on a real port of loopback: with keys, as if others could reach it, or open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from typing import Any, NamedTuple

from tests.fakes import LIMIT_S, FakeHandle
from tests.server.doors.knocking import keyring
from worldline.core.config import ServerConfig
from worldline.server.app import create_app
from worldline.server.doors.admin import AdminDoor
from worldline.server.doors.keys import Keyring
from worldline.server.doors.tls import Certificate
from worldline.server.serve import make_server


class Exposed(NamedTuple):
    """Ports of a running server; `admin` is 0 without a listener of its own."""

    port: int
    admin: int

    def raw(self) -> socket.socket:
        """A connection, nothing said yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)


@contextlib.contextmanager
def exposed(
    *,
    certificate: Certificate | None = None,
    admin: bool = False,
    keys: bool = True,
    **settings: Any,
) -> Generator[Exposed]:
    """Serve a fake world, with two keys or none; ends with the context."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        beside = stack.enter_context(socket.create_server(("127.0.0.1", 0))) if admin else None
        admin_port = None if beside is None else beside.getsockname()[1]
        host = "0.0.0.0" if keys else "127.0.0.1"
        config = ServerConfig(host=host, admin_port=admin_port, **settings)
        ring = keyring() if keys else Keyring()
        app = create_app(config, FakeHandle(), keyring=ring)
        door = None if beside is None else AdminDoor(app, ring, beside, certificate)
        server = make_server(config, app, certificate=certificate, admin=door)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Exposed(listener.getsockname()[1], admin_port or 0)
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "the server did not stop"
