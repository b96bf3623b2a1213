"""Rings that outlive their sessions, because recorded graphs hold their addresses.

A session gives its ring back when it closes and the next one of the same sizes takes it, so what
was recorded during warm-up serves every visitor. Rings of other sizes are freed first.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from worldline.models.preset import GROWING
from worldline.runtime.kv_cache import FrameRing, RingParams


class RingPool:
    """At most `idle` rings wait; `drop` is told of each that is freed. `made` counts new ones."""

    def __init__(self, *, idle: int, drop: Callable[[FrameRing], None] = lambda ring: None) -> None:
        self.idle = idle
        self._drop = drop
        self._waiting: list[FrameRing] = []
        self._taken: weakref.WeakSet[FrameRing] = weakref.WeakSet()
        self.made = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def held(self) -> list[FrameRing]:
        """Every ring that takes memory now: with sessions, or waiting."""
        return [*self._taken, *self._waiting]

    def take(self, params: RingParams, make: Callable[[], FrameRing]) -> FrameRing:
        """An empty ring of those sizes: one that waits, or a new one."""
        ring = self._found(params)
        if ring is None:
            self.made += 1
            ring = make()
        self._taken.add(ring)
        return ring

    def give(self, ring: FrameRing) -> None:
        """Take a ring back from a session that has ended or is parked."""
        self._taken.discard(ring)
        if ring.params.window == GROWING:  # as long as that one session was
            self._drop(ring)
            return
        ring.empty()
        self._waiting.append(ring)
        while len(self._waiting) > self.idle:
            self._drop(self._waiting.pop(0))

    def _found(self, params: RingParams) -> FrameRing | None:
        for i, ring in enumerate(self._waiting):
            if ring.params == params:
                return self._waiting.pop(i)
        while self._waiting:  # of other sizes: their memory may be needed now
            self._drop(self._waiting.pop())
        return None
