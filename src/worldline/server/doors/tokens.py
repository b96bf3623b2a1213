"""Signed tokens: JSON Web Tokens with HS256 and nothing else, checked by the optional PyJWT.

`sub` names the client and `exp` is required; `aud` must be the configured audience if there is one;
`admin: true` makes an administrator. The algorithm is ours to say, never the token's.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

from worldline.core.errors import ConfigError, UnauthorizedError
from worldline.core.secret import Secret
from worldline.server.doors.clients import Client

ALGORITHM: Final = "HS256"
LEEWAY_S: Final = 30  # clocks of two machines are never quite the same
MIN_SECRET: Final = 32  # bytes: the width of the hash (RFC 7518, section 3.2)
_MAX_SUBJECT: Final = 128


class TokenRule(NamedTuple):
    """How signed tokens are read; make it with `token_rule`."""

    secret: Secret
    audience: str | None = None


def token_rule(secret: Secret, audience: str | None = None) -> TokenRule:
    """A rule that can be applied. Raises: ConfigError for a short secret, or without PyJWT."""
    length = len(secret.reveal().encode())
    if length < MIN_SECRET:
        raise ConfigError(
            "the secret for signed tokens is too short",
            expected=f"at least {MIN_SECRET} bytes",
            got=f"{length} bytes",
        )
    try:
        importlib.import_module("jwt")
    except ImportError:
        raise ConfigError(
            "signed tokens need PyJWT", expected='pip install "worldline[auth]"'
        ) from None
    return TokenRule(secret, audience)


def looks_signed(token: str) -> bool:
    """Whether it has the three parts of a signed token; saves parsing what is none."""
    return token.count(".") == 2


def verify(token: str, rule: TokenRule) -> Client:
    """The client that a signed token names. Raises: UnauthorizedError, without the token in it."""
    jwt = importlib.import_module("jwt")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            rule.secret.reveal(),
            algorithms=[ALGORITHM],
            audience=rule.audience,
            leeway=LEEWAY_S,
            options={"require": ["exp", "sub"], "verify_aud": rule.audience is not None},
        )
    except jwt.ExpiredSignatureError:
        raise UnauthorizedError("this token has expired", expected="a newer token") from None
    except (jwt.InvalidTokenError, ValueError) as error:  # ValueError: no text that can be encoded
        reason = type(error).__name__  # its text may quote the token
        raise UnauthorizedError("this token is not valid", got=reason) from None
    subject = claims["sub"]
    if not (isinstance(subject, str) and 0 < len(subject) <= _MAX_SUBJECT):
        raise UnauthorizedError("this token names nobody", expected="sub: a short text")
    return Client(f"token:{subject}", claims.get("admin") is True)
