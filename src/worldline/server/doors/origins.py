"""Which pages may talk to the server: host names and origins, as pure functions.

Two attacks come through the browser of somebody who may use the server. A page from elsewhere opens
a socket to a port of this machine: its `Origin` is not ours. A page whose name was pointed at this
machine after it was loaded (DNS rebinding) has an origin that equals the `Host` it asks for: so a
server that is open because it listens on loopback only wants to be called by a name of loopback.

Programs send no `Origin`; they are none of these attacks.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from worldline.core.errors import ConfigError, ForbiddenError

ANY: Final = "*"
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]+)", re.IGNORECASE | re.ASCII)
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Place(NamedTuple):
    """A host and a port; without a port it is the scheme's own."""

    host: str
    port: int | None


class OriginRule(NamedTuple):
    """`allowed` are origins beside our own; `local_only` asks for a name of this machine."""

    allowed: frozenset[str] = frozenset()
    local_only: bool = True


def origin_rule(allowed: tuple[str, ...], *, local_only: bool) -> OriginRule:
    """A rule of origins as people write them. Raises: ConfigError for one that is none."""
    for origin in allowed:
        if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                "this is no origin", expected="scheme://host[:port], null or *", got=origin
            )
    return OriginRule(frozenset(origin.lower() for origin in allowed), local_only)


def check_host(host: str | None, rule: OriginRule) -> None:
    """Raises: ForbiddenError when a page may have been pointed at us under another name."""
    if host is None or not rule.local_only or ANY in rule.allowed:
        return
    place = _place(host)
    if place is not None and (is_loopback_name(place.host) or _is_allowed_host(place, rule)):
        return
    raise ForbiddenError(
        "this server listens on loopback and does not know this host name",
        expected="localhost, 127.0.0.1 or [::1]; else start it with --allow-origin",
        got=host[:100],
    )


def check_origin(origin: str | None, host: str | None, rule: OriginRule) -> bool:
    """Whether another, allowed origin asks (and wants CORS headers); our own page and programs do
    not. Raises: ForbiddenError for the page of somebody else.
    """
    if origin is None:
        return False
    if origin.lower() in rule.allowed or ANY in rule.allowed:
        return not _is_same(origin, host)
    if _is_same(origin, host):
        return False
    raise ForbiddenError(
        "a page from elsewhere may not use this server",
        expected="the server's own page; or start it with --allow-origin",
        got=origin[:100],
    )


def is_loopback_name(host: str) -> bool:
    """Whether `host` can only mean the machine it is used on."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same(origin: str, host: str | None) -> bool:
    """The same host and port. The scheme may differ: a proxy before us may have ended the TLS."""
    match = _ORIGIN.fullmatch(origin)
    default = _PORTS.get(match[1].lower()) if match is not None else None
    if match is None or default is None or host is None:
        return False
    theirs, ours = _place(match[2]), _place(host)
    if theirs is None or ours is None or theirs.host != ours.host:
        return False
    return (theirs.port or default) == (ours.port or default)


def _is_allowed_host(place: Place, rule: OriginRule) -> bool:
    matches = (_ORIGIN.fullmatch(origin) for origin in rule.allowed)
    found = (_place(match[2]) for match in matches if match is not None)
    return any(other is not None and other.host == place.host for other in found)


def _place(netloc: str) -> Place | None:
    """Host and port of `host[:port]`; None for anything else, names with a login among it."""
    if not netloc or "@" in netloc or "/" in netloc:
        return None
    try:
        parts = urlsplit(f"//{netloc}")
        return Place((parts.hostname or "").rstrip("."), parts.port)
    except ValueError:
        return None
