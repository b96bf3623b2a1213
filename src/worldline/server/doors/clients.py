"""Who is on the other side, as the doors found out; kept in the ASGI scope of the connection."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, NamedTuple

_SLOT: Final = "worldline.client"


class Client(NamedTuple):
    """One client: `name` is stable (a key's name, a token's subject, or an address), no secret."""

    name: str
    admin: bool = False


UNKNOWN: Final = Client("unknown")


def client_of(scope: MutableMapping[str, Any]) -> Client:
    """Who this connection belongs to; `UNKNOWN` where no doors stand before the app (tests)."""
    return scope.get(_SLOT, UNKNOWN)


def set_client(scope: MutableMapping[str, Any], client: Client) -> None:
    """Note who it is; the doors' own business."""
    scope[_SLOT] = client
