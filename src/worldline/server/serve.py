"""The app on a socket: the one place that configures uvicorn."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import uvicorn
from starlette.applications import Starlette

from worldline.core.config import ServerConfig

EXPOSED = (
    "Warning: {host} is reachable from other machines, and this server has no login yet: anyone who"
    " reaches port {port} can use it. Bind to 127.0.0.1 unless the network is yours."
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; names other than localhost count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposure_warning(config: ServerConfig) -> str | None:
    """What to print before serving, if the address is not loopback."""
    if is_loopback(config.host):
        return None
    return EXPOSED.format(host=config.host, port=config.port)


class _Server(uvicorn.Server):
    """Uvicorn, but a peer that reads nothing does not keep its socket when the server has ended."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close politely, wait as long as configured, then cut what is still open."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # aborted transports give up their sockets in the next turn


def make_server(config: ServerConfig, app: Starlette) -> uvicorn.Server:
    """A server for `app`: run it with `run()`, end it by setting `should_exit`.

    A message above `max_message_bytes` is refused by the WebSocket layer with close code 1009. On
    the way down open sockets are closed with 1012, and get `shutdown_s` to give back their seats.
    """
    return _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            ws="websockets-sansio",
            ws_max_size=config.max_message_bytes,
            ws_per_message_deflate=False,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, round(config.shutdown_s)),
        )
    )
