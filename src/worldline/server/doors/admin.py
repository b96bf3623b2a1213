"""The listener of its own for administrators: metrics, traces, worlds, beside the main one.

It shares the loop and the services of the main server and lives as long: it answers while the main
server drains. What it serves is not served on the main port then, but a trace to who asked for it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette

from worldline.core.config import ServerConfig
from worldline.server.doors.gate import doors
from worldline.server.doors.keys import Keyring
from worldline.server.doors.listening import PatientHttp
from worldline.server.doors.policy import admin_policy_of, is_loopback
from worldline.server.doors.tls import CIPHERS, Certificate
from worldline.server.http import ADMIN_ROUTES, OPEN_ROUTES
from worldline.server.waiting import AsyncClock, LoopClock


class AdminDoor(NamedTuple):
    """What the listener needs: the main app, the keys, and a bound socket.

    A certificate is used where others can reach it: an administrator's key should not be readable
    on the way.
    """

    app: Starlette
    keyring: Keyring
    listener: socket.socket
    certificate: Certificate | None = None


def admin_app(
    config: ServerConfig, main: Starlette, keyring: Keyring, *, clock: AsyncClock | None = None
) -> Starlette:
    """The administrators' app; `main` must run when it is asked. Raises: ConfigError."""

    def count(code: str) -> None:
        main.state.services.metrics.count_error(code)

    rules = admin_policy_of(config, keyring)
    app = Starlette(
        routes=[*OPEN_ROUTES, *ADMIN_ROUTES],
        middleware=[doors(rules, clock=clock or LoopClock(), count=count)],
    )
    app.state = main.state
    return app


class AdminServer(uvicorn.Server):
    """A second uvicorn in the same loop; signals are the first one's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave them alone."""
        yield


def admin_server(config: ServerConfig, door: AdminDoor) -> AdminServer:
    """A server for the administrators' app: `serve(sockets=[door.listener])`."""
    signed = None if is_loopback(config.admin_host) else door.certificate
    return AdminServer(
        uvicorn.Config(
            admin_app(config, door.app, door.keyring),
            http=PatientHttp,
            ws="none",
            h11_max_incomplete_event_size=config.max_head_bytes,
            limit_concurrency=config.max_connections,
            timeout_keep_alive=max(1, round(config.head_timeout_s)),
            server_header=False,
            ssl_certfile=signed and signed.cert,
            ssl_keyfile=None if signed is None else str(signed.key),
            ssl_ciphers=CIPHERS,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
