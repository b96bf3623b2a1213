"""The app on a socket: the one place that configures uvicorn."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette

from worldline.core.config import ServerConfig
from worldline.server.doors.listening import GuardedSocket, PatientHttp
from worldline.server.doors.tls import Certificate


class _Server(uvicorn.Server):
    """Uvicorn, but a peer that reads nothing does not keep its socket when the server has ended."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close politely, wait as long as configured, then cut what is still open."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # aborted transports give up their sockets in the next turn


def make_server(
    config: ServerConfig, app: Starlette, *, certificate: Certificate | None = None
) -> uvicorn.Server:
    """A server for `app`: run it with `run()`, end it by setting `should_exit`.

    A message above `max_message_bytes` (`max_hello_bytes` before a token was shown) is refused by
    its length, unread, with close code 1009. With a certificate the server speaks TLS only. On
    the way down open sockets are closed with 1012, and get `shutdown_s` to give back their seats.
    """
    return _Server(
        uvicorn.Config(
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
            ssl_keyfile=certificate and certificate.key,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, round(config.shutdown_s)),
        )
    )
