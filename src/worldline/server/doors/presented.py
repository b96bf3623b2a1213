"""Where a token may stand: an `Authorization` header, or a sub-protocol `bearer.TOKEN`.

A browser's page cannot set headers of a WebSocket, hence the sub-protocol. Never the URL: that is
kept in histories, logs and `Referer` headers, so a token there is not even looked at.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

PREFIX: Final = "bearer."
_PROTOCOLS: Final = b"sec-websocket-protocol"


def presented_token(scope: Scope, headers: Headers) -> str | None:
    """The token that came with the request; None without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for item in scope.get("subprotocols", ()):
        if item.startswith(PREFIX):
            return item[len(PREFIX) :]
    return None


def hide_tokens(scope: Scope) -> None:
    """Take every token out of the scope, so that nothing behind the doors can show one."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            continue
        kept.append((name, _without_bearer(value) if name.lower() == _PROTOCOLS else value))
    scope["headers"] = kept
    if "subprotocols" in scope:
        scope["subprotocols"] = [p for p in scope["subprotocols"] if not p.startswith(PREFIX)]


def _without_bearer(value: bytes) -> bytes:
    items = [item.strip() for item in value.split(b",")]
    return b", ".join(item for item in items if not item.startswith(PREFIX.encode()))
