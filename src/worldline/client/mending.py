"""When to dial again after a loss; pure, times in seconds of the caller's clock."""

from __future__ import annotations

from worldline.client.options import Patience


class Mending:
    """Attempts since the world was last had for a while; see `Patience`.

    A connection that breaks at once is an attempt like one that never came about: a server that
    accepts and drops is dialled ever less often.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._attempts = 0
        self._lost: float | None = None
        self._not_before = 0.0

    def lost(self, now: float, *, lived_s: float | None, after_s: float) -> None:
        """A connection ended that had the world for `lived_s`, None never; `after_s` is when the
        server wants to be asked again."""
        if self._lost is None or lived_s is not None:
            self._lost = now
        if lived_s is not None and lived_s >= self._patience.most_s:
            self._attempts = 0
        self._not_before = now + after_s

    def pause(self, now: float, grace_s: float) -> float | None:
        """Seconds until the next attempt, which this counts; None when the world is gone then."""
        if self._lost is None:
            return 0.0
        left = self._lost + grace_s
        if now >= left or self._not_before > left:
            return None
        usual = self._patience.pause(self._attempts - 1) if self._attempts else 0.0
        self._attempts += 1
        return max(usual, self._not_before - now, 0.0)
