"""What a world is to do between two chunks, one thing after the other, and who asked for it.

An errand stays until it is done: when the worker dies under it, it is run again in the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from worldline.core.errors import RateError

MOST: Final = 8


class Errand(NamedTuple):
    """`run` does it; `id` is the input that asked, None where a failure is the world's."""

    run: Callable[[], Awaitable[None]]
    id: int | None = None


class Errands:
    """In the order they came."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, errand: Errand) -> None:
        """One more. Raises: RateError when too many wait."""
        if len(self._waiting) >= MOST:
            raise RateError("too much is asked for at once", expected=f"at most {MOST} at a time")
        self._waiting.append(errand)

    @property
    def first(self) -> Errand:
        """The one that is due."""
        return self._waiting[0]

    def done(self) -> None:
        """The first is done, or has failed for good."""
        self._waiting.popleft()
