"""Text that never prints: keys and tokens stay out of logs, reprs, tracebacks and messages."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NoReturn

HIDDEN: Final = "***"


class Secret:
    """A secret text. Every way of printing or storing it gives `***` or an error.

    Only `reveal` and `matches` look inside; a `Secret` cannot be pickled, copied into JSON, or
    encoded as a message.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one call that needs it."""
        return self._text

    def matches(self, given: str) -> bool:
        """Whether `given` is this secret, in a time that tells nothing of where they differ."""
        return hmac.compare_digest(_digest(self._text), _digest(given))

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, format_spec: str) -> str:
        return HIDDEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not stored")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
