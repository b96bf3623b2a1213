"""Where a server is: what users write, as the WebSocket and HTTP addresses that are used."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from worldline.core.errors import ConfigError

ROUTE: Final = "/v1/worlds/live"
SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class Address(NamedTuple):
    """A server; `prefix` is the path before `/v1`, empty for most."""

    scheme: str
    netloc: str
    prefix: str

    @property
    def socket(self) -> str:
        """The address of the live endpoint."""
        return f"{self.scheme}://{self.netloc}{self.prefix}{ROUTE}"

    def http(self, path: str) -> str:
        """The address of another route of the same server; `path` begins with a slash."""
        scheme = "https" if self.scheme == "wss" else "http"
        return urljoin(f"{scheme}://{self.netloc}", self.prefix + path)


def parse_address(url: str) -> Address:
    """`http://host:port`, `wss://host/prefix` or `host:port`. Raises: ConfigError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ConfigError("not the address of a server", expected="http://HOST:PORT", got=url)
    if "@" in parts.netloc or parts.query:
        raise ConfigError("keys never stand in an address", expected="Client(url, token=...)")
    prefix = parts.path.removesuffix("/").removesuffix(ROUTE)
    return Address(scheme, parts.netloc, prefix)
