"""What `serve` is told, from options, a TOML file and the environment, as settings and keys.

An option that is not given leaves the file's value, or the setting's own default; one that is given
wins, whatever it says.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from worldline.cli.options import Play, Serve
from worldline.core.config import ServerConfig
from worldline.core.env import read_secret
from worldline.core.errors import ConfigError
from worldline.core.secret import Secret
from worldline.server.doors.keys import Keyring, new_key, parse_keys, read_keys
from worldline.server.doors.policy import admin_policy_of, is_loopback, policy_of
from worldline.server.doors.tokens import TokenRule, token_rule

DEFAULT_PORT: Final = 30000
_PORTS: Final = range(65536)
# Option -> setting, where they are not called the same.
_SETTINGS: Final[dict[str, str]] = {
    "host": "host",
    "port": "port",
    "seats": "seats",
    "seat_wait": "seat_wait_s",
    "init_timeout": "init_timeout_s",
    "warmup_wait": "warmup_wait_s",
    "allow_origin": "allow_origins",
    "tls": "tls",
    "admin_port": "admin_port",
    "admin_host": "admin_host",
    "films": "films_dir",
}
_SHOWN_KEY: Final = (
    "This server can be reached from other machines and has no keys, so here is one for this run:\n"
    "  {key}\n"
    "The page asks for it. Set WORLDLINE_API_KEYS or --api-keys for keys of your own."
)


def server_config(options: Serve) -> ServerConfig:
    """The settings of one server. Raises: ConfigError."""
    values = {} if options.config is None else read_settings(options.config)
    if isinstance(options, Play):  # on one's own machine one may look as long as one likes
        values.setdefault("idle_lease_s", 0.0)
        if options.world is not None:
            values["world_file"] = str(options.world.resolve())
    for option, setting in _SETTINGS.items():
        given = getattr(options, option)
        if given is not None and given != ():
            values[setting] = given
    try:
        config = msgspec.convert(values, ServerConfig)
    except msgspec.ValidationError as error:
        raise ConfigError("a setting cannot be read", got=str(error)) from None
    _check(config)
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises: ConfigError, also for a name that is none."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("the file of settings cannot be read", got=f"{path}: {error}") from None
    unknown = values.keys() - set(ServerConfig.__struct_fields__)
    if unknown:
        raise ConfigError(
            "the file names settings that there are not",
            expected="those of docs/operations.md",
            got=", ".join(sorted(unknown)),
        )
    return values


def keyring_of(
    options: Serve,
    config: ServerConfig,
    environ: Mapping[str, str],
    *,
    tell: Callable[[str], None] | None,
) -> Keyring:
    """The keys of one server; `tell` shows a person at a terminal the one made for this run.

    Raises: ConfigError when others can reach the server, there are no keys and nobody to tell.
    """
    keys = () if options.api_keys is None else read_keys(options.api_keys)
    if (listed := read_secret("api_keys", environ)) is not None:
        keys += parse_keys(listed.reveal().split(","), "WORLDLINE_API_KEYS")
    ring = Keyring(keys, _rule(options, config, environ))
    is_local = is_loopback(config.host)
    is_local &= config.admin_port is None or is_loopback(config.admin_host)
    if not is_local and not ring.needed and tell is not None:
        made = new_key("terminal")
        tell(_SHOWN_KEY.format(key=made.secret.reveal()))
        ring = Keyring([made])
    policy_of(config, ring)
    if config.admin_port is not None:
        admin_policy_of(config, ring)
    return ring


def to_terminal() -> Callable[[str], None] | None:
    """A way to tell a person something that must not end in a log; None without a terminal."""
    if not sys.stderr.isatty():
        return None
    return lambda text: print(text, file=sys.stderr, flush=True)


def _rule(options: Serve, config: ServerConfig, environ: Mapping[str, str]) -> TokenRule | None:
    secret = read_secret("jwt_secret", environ)
    if options.jwt_secret is not None:
        try:
            secret = Secret(options.jwt_secret.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            raise ConfigError("--jwt-secret cannot be read", got=options.jwt_secret) from None
    return None if secret is None else token_rule(secret, config.jwt_audience)


def _check(config: ServerConfig) -> None:
    if config.seats < 1:
        raise ConfigError("nobody could enter", expected="--seats 1 or more", got=config.seats)
    for name, port in (("port", config.port), ("admin_port", config.admin_port)):
        if port is not None and port not in _PORTS:
            raise ConfigError("no such port", expected=f"{name} 0 to 65535", got=port)
    for name, value in msgspec.structs.asdict(config).items():
        if isinstance(value, (int, float)) and not value >= 0:
            raise ConfigError(f"{name} cannot be used", expected="0 or more", got=value)
