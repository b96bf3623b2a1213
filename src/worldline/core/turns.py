"""Who uses the one device next: earliest deadline first; pure, told the time by its caller.

Chunks are not interrupted, so the choice is made once for each. What keeps it fair:

- A deadline that has passed when somebody asks counts as the moment of asking, and one further away
  than `HORIZON_S` as that. So nobody gets ahead by claiming to be late, nobody waits for ever for
  claiming to have time, and when all are late they take turns in the order they asked.
- Equal deadlines go to whom the device has served least recently.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HORIZON_S: Final = 10.0


class _Ask(NamedTuple):
    deadline: float
    order: int


class Turns:
    """Everybody who waits for the device. Times are seconds on one clock."""

    def __init__(self) -> None:
        self._asks: dict[str, _Ask] = {}
        self._served: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._asks)

    def ask(self, id: str, *, now: float, deadline: float) -> None:
        """Wait for a turn, to be over by `deadline`.

        Asking again changes the deadline and keeps the place among equals.
        """
        before = self._asks.get(id)
        latest = min(max(deadline, now), now + HORIZON_S)
        self._asks[id] = _Ask(latest, self._next() if before is None else before.order)

    def withdraw(self, id: str) -> None:
        """Wait no longer; whoever does not wait is no error."""
        self._asks.pop(id, None)

    def forget(self, id: str) -> None:
        """Withdraw, and forget when this one was last served."""
        self.withdraw(id)
        self._served.pop(id, None)

    def next(self) -> str | None:
        """Take the turn of whoever is first; None: nobody waits."""
        if not self._asks:
            return None
        chosen = min(self._asks, key=self._rank)
        del self._asks[chosen]
        self._served[chosen] = self._next()
        return chosen

    def _rank(self, id: str) -> tuple[float, int, int]:
        ask = self._asks[id]
        return ask.deadline, self._served.get(id, -1), ask.order

    def _next(self) -> int:
        self._count += 1
        return self._count
