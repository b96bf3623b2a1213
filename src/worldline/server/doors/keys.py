"""API keys: who owns which, read from a file or the environment, compared in constant time.

One key is `name:secret` or `name:secret:admin`: a line of a file (blank lines and lines that begin
with # are skipped), or an item between commas of `WORLDLINE_API_KEYS`. A secret is 16 to 256 of the
characters that may stand in a WebSocket sub-protocol: letters, digits, and . _ ~ -
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from worldline.core.errors import ConfigError, UnauthorizedError
from worldline.core.secret import Secret
from worldline.server.doors.clients import Client
from worldline.server.doors.tokens import TokenRule, looks_signed, verify

_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_SECRET: Final = re.compile(r"[A-Za-z0-9._~-]{16,256}", re.ASCII)
MAX_TOKEN: Final = 4096


class Key(NamedTuple):
    """One API key."""

    name: str
    secret: Secret
    admin: bool = False


class Keyring:
    """All keys of a server, and how it reads signed tokens. Empty: everybody may come in."""

    def __init__(self, keys: Sequence[Key] = (), rule: TokenRule | None = None) -> None:
        self._keys = tuple(keys)
        self._rule = rule
        names = [key.name for key in keys]
        if len(set(names)) != len(names):
            raise ConfigError("two API keys have one name", expected="a name for each key")

    @property
    def needed(self) -> bool:
        """Whether a token is required at all."""
        return bool(self._keys) or self._rule is not None

    def who(self, token: str) -> Client:
        """The owner of `token`. Raises: UnauthorizedError.

        Every key is compared, whichever fits, so the time taken does not tell which it was.
        """
        if len(token) > MAX_TOKEN:
            raise UnauthorizedError("this token is not valid", expected=f"at most {MAX_TOKEN}")
        matching = [key for key in self._keys if key.secret.matches(token)]
        if matching:
            return Client(f"key:{matching[0].name}", matching[0].admin)
        if self._rule is not None and looks_signed(token):
            return verify(token, self._rule)
        raise UnauthorizedError("this token is not valid", expected="a key of this server")

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key.name for key in self._keys)})"


def parse_keys(lines: Iterable[str], source: str) -> tuple[Key, ...]:
    """Keys from `name:secret[:admin]` lines; `source` is named in errors, the secrets never are.

    Raises: ConfigError.
    """
    keys: list[Key] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            keys.append(_parse(line.strip(), f"{source}, item {number}"))
    return tuple(keys)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises: ConfigError when it cannot be read, or holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError("the file of API keys cannot be read", got=f"{path}: {reason}") from None
    keys = parse_keys(text.splitlines(), str(path))
    if not keys:
        raise ConfigError("the file of API keys holds none", expected="name:secret", got=path)
    return keys


def new_key(name: str) -> Key:
    """A key of 256 random bits, for an administrator."""
    return Key(name, Secret(secrets.token_urlsafe(32)), admin=True)


def _parse(item: str, place: str) -> Key:
    name, _, rest = item.partition(":")
    secret, _, role = rest.partition(":")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: the key has no usable name", expected="name:secret[:admin]")
    if not _SECRET.fullmatch(secret):
        raise ConfigError(
            f"{place}: the secret of {name} cannot be used",
            expected="16 to 256 letters, digits or . _ ~ -",
            got=f"{len(secret)} characters",
        )
    if role not in ("", "admin"):
        raise ConfigError(f"{place}: the role of {name} is unknown", expected="admin or nothing")
    return Key(name, Secret(secret), role == "admin")
