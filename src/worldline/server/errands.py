"""What a session is to do between two chunks, one thing after the other, and who is told.

An errand stays until it is done: when the worker dies under it, it is run again in the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from worldline.core.errors import (
    RateError,
    SessionClosedError,
    WorkerDiedError,
    WorldlineError,
)

MOST: Final = 8


class Errand(NamedTuple):
    """`run` does it, and `tell` is given what came of it; None where a failure is the session's."""

    run: Callable[[], Awaitable[Any]]
    tell: Callable[[Any], None] | None = None


class Errands:
    """Of one session, in the order they came."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, errand: Errand) -> None:
        """One more. Raises: RateError when too many wait, SessionClosedError."""
        if self._closed:
            raise SessionClosedError("the world is not open")
        if len(self._waiting) >= MOST:
            raise RateError("too much is asked for at once", expected=f"at most {MOST} at a time")
        self._waiting.append(errand)

    async def run_first(self) -> None:
        """Do the one that is due; who asked is told what came of it, or the error.

        Raises: what nobody asked for; WorkerDiedError, and then it is still due.
        """
        errand = self._waiting[0]
        try:
            outcome = await errand.run()
        except WorkerDiedError:
            raise
        except WorldlineError as error:
            self._waiting.popleft()
            if errand.tell is None:
                raise
            errand.tell(error)
        else:
            self._waiting.popleft()
            if errand.tell is not None:
                errand.tell(outcome)

    def close(self) -> None:
        """Nothing more is done: who still waits is told so."""
        self._closed = True
        while self._waiting:
            tell = self._waiting.popleft().tell
            if tell is not None:
                tell(SessionClosedError("the world has ended"))
