"""Who may use the engine: a fixed number of seats, asked for by polling as the mainline does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from worldline.core.clock import deadline
from worldline.core.errors import CapacityError
from worldline.server.waiting import AsyncClock

POLL_S: Final = 0.1


class Seats:
    """The sessions that hold engine state now. A seat is given back after the engine let go."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken: set[str] = set()
        self._heirs: list[Callable[[], None]] = []
        self.refused = 0  # how often somebody asked in vain

    @property
    def taken(self) -> int:
        """Seats in use."""
        return len(self._taken)

    def take(self, session_id: str) -> bool:
        """Take a seat if one is free."""
        assert session_id not in self._taken, f"session {session_id} already has a seat"
        if len(self._taken) >= self.count:
            self.refused += 1
            return False
        self._taken.add(session_id)
        return True

    def release(self, session_id: str) -> None:
        """Give a seat back; those who asked are told at once."""
        self._taken.remove(session_id)
        for tell in self._heirs:
            tell()

    def tell_when_free(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever a seat was given back, before anybody who polls can take it."""
        self._heirs.append(tell)

    def forget(self, tell: Callable[[], None]) -> None:
        """Tell this one no more."""
        self._heirs.remove(tell)

    async def wait(self, session_id: str, clock: AsyncClock, wait_s: float) -> None:
        """Take a seat, asking every 0.1 s for at most `wait_s` seconds.

        Raises: CapacityError when all are still taken then.
        """
        end = deadline(clock, wait_s)
        while not self.take(session_id):
            left = end.remaining(clock.now())
            if not left:
                raise CapacityError(
                    "all seats are taken",
                    expected=f"a free seat within {wait_s:g} s",
                    got=f"{self.taken} of {self.count} taken",
                )
            await clock.sleep(min(POLL_S, left))
