"""Time as a value that is passed in, so that every wait and pace can be tested without waiting.

`now()` is monotonic seconds from an arbitrary start; only differences mean something. The awaitable
side (sleeping until a time) lives in the server, because this layer knows no event loop.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """Something that tells monotonic time in seconds."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never falls."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never falls."""
        return time.perf_counter()


class Deadline(NamedTuple):
    """A moment on a clock, in that clock's seconds."""

    at: float

    def remaining(self, now: float) -> float:
        """Seconds left at `now`; 0 once it has passed."""
        return max(0.0, self.at - now)


def deadline(clock: Clock, seconds: float) -> Deadline:
    """The moment `seconds` from now."""
    return Deadline(clock.now() + seconds)


def to_ms(seconds: float) -> int:
    """Seconds as the non-negative rounded milliseconds that old clients can decode."""
    return max(0, round(seconds * 1000.0))
