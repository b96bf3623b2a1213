"""Addresses as the limits see them.

A proxy before us is believed (uvicorn's `X-Forwarded-For`) only when it connects from loopback, or
from an address that `FORWARDED_ALLOW_IPS` names.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.types import Scope

_V6_PREFIX: Final = 64  # one customer's network: whoever has one address there has all of them


def address_of(scope: Scope) -> str:
    """The address of the peer; of IPv6 the network it is in."""
    client = scope.get("client")
    if not client:
        return "unknown"
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, _V6_PREFIX), strict=False))
    return str(address)


def is_local(address: str) -> bool:
    """Whether it is this machine's own; such peers have no limit per address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
