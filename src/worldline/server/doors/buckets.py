"""Token buckets: pure arithmetic on a clock that is passed in.

A bucket holds `burst` and gains `per_s` a second.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from worldline.core.clock import Clock

MAX_BUCKETS: Final = 4096  # addresses remembered; the one unheard of for longest is forgotten


class Rate(NamedTuple):
    """`per_s` on average, `burst` at once; a `per_s` of 0 means no limit."""

    per_s: float
    burst: float


class Bucket:
    """One bucket, full at first."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._level = float(rate.burst)
        self._filled = now

    def spend(self, amount: float, clock: Clock) -> float:
        """Take `amount` whatever there is; seconds to wait until the debt is paid, 0 for none."""
        if not self._rate.per_s:
            return 0.0
        self._fill(clock.now())
        self._level -= amount
        return max(0.0, -self._level / self._rate.per_s)

    def ask(self, clock: Clock) -> float:
        """Take 1 if it is there and return 0; else take nothing, and return the seconds until."""
        if not self._rate.per_s:
            return 0.0
        self._fill(clock.now())
        if self._level < 1:
            return (1 - self._level) / self._rate.per_s
        self._level -= 1
        return 0.0

    def empty(self, clock: Clock) -> float:
        """Seconds until 1 is there, 0 if it is; takes nothing."""
        wait = self.ask(clock)
        if not wait:
            self._level += 1
        return wait

    def _fill(self, now: float) -> None:
        gained = max(0.0, now - self._filled) * self._rate.per_s
        self._level = min(self._rate.burst, self._level + gained)
        self._filled = now


class Buckets:
    """A bucket per address, for at most `MAX_BUCKETS` of them."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def ask(self, address: str) -> float:
        """Take 1 for `address`; 0 if it was there, else the seconds until it will be."""
        return self._bucket(address).ask(self._clock)

    def empty(self, address: str) -> float:
        """Seconds until there is 1 for `address`; takes nothing."""
        return self._bucket(address).empty(self._clock)

    def _bucket(self, address: str) -> Bucket:
        found = self._buckets.pop(address, None)
        if found is None:
            found = Bucket(self._rate, self._clock.now())
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets[address] = found  # the newest is last
        return found
