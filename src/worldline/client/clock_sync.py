"""The server's clock as seen from here: the quickest of the last answered pings says the offset."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

KEPT: Final = 16


class Sample(NamedTuple):
    """One answered ping; milliseconds."""

    round_trip: float
    offset: float


class ClockSync:
    """Pure: the caller tells the times. All in milliseconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def answered(self, *, sent: float, server: float, now: float) -> None:
        """A ping sent at `sent` (our clock) came back at `now`; the server read `server`."""
        trip = max(0.0, now - sent)
        self._samples.append(Sample(trip, server - (sent + trip / 2)))

    @property
    def known(self) -> bool:
        """Whether any ping was answered."""
        return bool(self._samples)

    @property
    def round_trip(self) -> float:
        """The shortest of the last round trips; 0 while unknown."""
        return min(self._samples).round_trip if self._samples else 0.0

    @property
    def offset(self) -> float:
        """Server's clock less ours, off by at most half of `round_trip`; 0 while unknown."""
        return min(self._samples).offset if self._samples else 0.0

    def here(self, server: float) -> float:
        """A moment of the server's clock on ours."""
        return server - self.offset

    def forget(self) -> None:
        """After a reconnect: the other end may be another process."""
        self._samples.clear()
