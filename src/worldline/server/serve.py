"""The app on a socket: the one place that configures uvicorn."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from worldline.core.config import ServerConfig
from worldline.server.doors.admin import AdminDoor, AdminServer, admin_server
from worldline.server.doors.listening import GuardedSocket, PatientHttp
from worldline.server.doors.tls import CIPHERS, Certificate
from worldline.server.engine import AsyncEngine
from worldline.server.live.house import House
from worldline.server.logs import log
from worldline.server.services import Services
from worldline.server.waiting import stop

logger = logging.getLogger("worldline.server")

POLL_S = 0.1


class _Server(uvicorn.Server):
    """Uvicorn, but a peer that reads nothing does not keep its socket when the server has ended.

    After SIGTERM live worlds go on for as long as configured, and everybody in them knows; nobody
    new gets in. A second signal ends that, and Ctrl-C ends at once. With an administrators' server
    beside it, which starts after this one and ends after it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: Starlette,
        *,
        beside: AdminServer | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._beside, self._listener = beside, listener
        self._running: asyncio.Task[None] | None = None
        self._signals = 0
        self._may_drain = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Count what asks for an end; the first one decides how."""
        self._may_drain = sig == signal.SIGTERM and not self._signals
        self._signals += 1
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serve until asked to stop, and then until live worlds have ended, if there is time."""
        await super().main_loop()
        if not self._may_drain:
            return
        draining = asyncio.create_task(self._house.drain())
        while self._may_drain and not draining.done():
            await asyncio.wait({draining}, timeout=POLL_S)
        await stop(draining)

    @contextmanager
    def _patience(self, more_s: float = 0.0) -> Generator[None]:
        """End the worker if this takes longer than `shutdown_s`, and `more_s` for others to end.

        By a thread: what waits for a call may stop the event loop too.
        """
        services: Services = self._app.state.services
        limit_s = services.config.shutdown_s + more_s
        timer = threading.Timer(limit_s, _end_worker, [services.engine])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    @property
    def _house(self) -> House:
        return self._app.state.house

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; then let the other one start."""
        await super().startup(sockets)
        if self._beside is not None and self._listener is not None:
            serving = self._beside.serve(sockets=[self._listener])
            self._running = asyncio.create_task(serving)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close politely, wait as long as configured, then cut what is still open.

        A worker that answers no more is ended then: everything waits for its calls.
        """
        with self._patience():
            await self._house.close()
        with self._patience(self.config.timeout_graceful_shutdown or 0):
            await super().shutdown(sockets)
        if self._beside is not None and self._running is not None:
            self._beside.should_exit = True
            await self._running
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # aborted transports give up their sockets in the next turn


def _end_worker(engine: AsyncEngine) -> None:
    log(logger, logging.ERROR, "the worker does not answer; it is ended")
    engine.end()


def make_server(
    config: ServerConfig,
    app: Starlette,
    *,
    certificate: Certificate | None = None,
    admin: AdminDoor | None = None,
) -> uvicorn.Server:
    """A server for `app`: run it with `run()`, end it by setting `should_exit`.

    A message above `max_message_bytes` (`max_hello_bytes` before a token was shown) is refused by
    its length, unread, with close code 1009. With a certificate the server speaks TLS only. On
    the way down sockets of `worldline.v1` are told, others closed with 1012, and all get
    `shutdown_s` to give back their seats; who cannot has a worker that is stuck, and it is ended.
    """
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=PatientHttp,
        h11_max_incomplete_event_size=config.max_head_bytes,
        ws=GuardedSocket,
        ws_max_size=config.max_hello_bytes,
        ws_per_message_deflate=False,
        limit_concurrency=config.max_connections,
        timeout_keep_alive=max(1, round(config.head_timeout_s)),
        server_header=False,
        ssl_certfile=certificate and certificate.cert,
        ssl_ciphers=CIPHERS,
        ssl_keyfile=None if certificate is None else str(certificate.key),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, round(config.shutdown_s)),
    )
    if admin is None:
        return _Server(settings, app)
    beside = admin_server(config, admin)
    return _Server(settings, app, beside=beside, listener=admin.listener)
