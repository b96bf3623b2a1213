"""The rules of the doors as one value, made from the settings and the keys."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

import msgspec
from starlette.types import Scope

from worldline.core.config import ServerConfig
from worldline.core.errors import ConfigError
from worldline.server.doors.buckets import Rate
from worldline.server.doors.keys import Keyring
from worldline.server.doors.origins import OriginRule, origin_rule

HEALTH: Final = frozenset({"/health", "/healthz", "/readyz"})
ADMIN: Final = ("/metrics", "/admin")
PICTURES: Final = frozenset({"/v1/videos"})  # requests that bring a picture
_MINUTE: Final = 60.0


class Policy(NamedTuple):
    """`public` paths may be read (GET, HEAD) by anybody: the page itself, and whether we live.
    Paths under `admin` are for administrators, where there are keys. At most `max_strangers`
    sockets at a time have shown no token yet, each for at most `hello_timeout_s`.
    """

    keyring: Keyring
    origins: OriginRule
    public: frozenset[str]
    admin: tuple[str, ...]
    sockets: Rate
    requests: Rate
    messages: Rate
    volume: Rate
    sockets_per_address: int
    max_strangers: int
    hello_timeout_s: float
    max_body_bytes: int
    max_message_bytes: int

    def is_public(self, scope: Scope) -> bool:
        """Whether this request needs no token."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        return scope["path"] in self.public

    def max_body(self, path: str) -> int:
        """Bytes that a request to `path` may bring."""
        return self.max_message_bytes if path in PICTURES else self.max_body_bytes

    def is_admin_path(self, path: str) -> bool:
        """Whether it is only for administrators."""
        return any(path == start or path.startswith(f"{start}/") for start in self.admin)


def policy_of(
    config: ServerConfig, keyring: Keyring, *, page: frozenset[str] = frozenset()
) -> Policy:
    """The rules for one server; `page` are the paths of the page's own files. Raises: ConfigError.

    A server that others can reach has keys: one without is refused here, not found out later.
    """
    local = is_loopback(config.host)
    if not local and not keyring.needed:
        raise ConfigError(
            f"{config.host} can be reached from other machines, and there are no keys",
            expected="WORLDLINE_API_KEYS, --api-keys or --jwt-secret; or --host 127.0.0.1",
        )
    return Policy(
        keyring=keyring,
        origins=origin_rule(config.allow_origins, local_only=local and not keyring.needed),
        public=HEALTH | page,
        admin=ADMIN,
        sockets=Rate(config.sockets_per_minute / _MINUTE, config.sockets_per_minute),
        requests=Rate(config.requests_per_minute / _MINUTE, config.requests_per_minute),
        messages=Rate(config.messages_per_second, 4 * config.messages_per_second),
        volume=Rate(config.bytes_per_second, 2 * config.max_message_bytes),
        sockets_per_address=config.sockets_per_address,
        max_strangers=max(1, config.max_sockets // 2),
        hello_timeout_s=max(1.0, config.head_timeout_s),
        max_body_bytes=config.max_body_bytes,
        max_message_bytes=config.max_message_bytes,
    )


def admin_policy_of(config: ServerConfig, keyring: Keyring) -> Policy:
    """The rules of the listener for administrators: all of it is theirs, or it is on loopback.

    Raises: ConfigError when others can reach its address and there are no keys.
    """
    elsewhere = Keyring() if is_loopback(config.admin_host) else keyring
    rules = policy_of(msgspec.structs.replace(config, host=config.admin_host), elsewhere)
    return rules._replace(admin=("",))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; names other than localhost count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
