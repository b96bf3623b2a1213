"""A film's seat: taken when nobody else wants it, and given up when somebody does.

A film that gives up its seat is parked in host memory, like a world whose visitor is away, and goes
on where it was once a seat has been free for a moment. Visitors ask by polling, so a seat that has
just become free is left alone for as long as it takes them all to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from worldline.server.seats import POLL_S, Seats
from worldline.server.waiting import AsyncClock, change

LEAVE_S: Final = 3 * POLL_S  # a free seat is for visitors first
LOOK_S: Final = 5.0


class Chair:
    """The seat of the film `id`; not taken yet."""

    def __init__(self, id: str, seats: Seats, clock: AsyncClock) -> None:
        self._id = id
        self._seats = seats
        self._clock = clock
        self._freed = asyncio.Event()
        self._taken = False
        self._refused = 0
        seats.tell_when_free(self._freed.set)

    @property
    def taken(self) -> bool:
        """Whether the film has its seat."""
        return self._taken

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked in vain since the film sat down."""
        return self._taken and self._seats.refused > self._refused

    async def take(self) -> None:
        """Return with a seat that nobody wanted for a moment."""
        assert not self._taken, "one chair for each film"
        seats = self._seats
        while True:
            refused = seats.refused
            await self._clock.sleep(LEAVE_S)
            if seats.refused == refused and seats.taken < seats.count and seats.take(self._id):
                self._taken, self._refused = True, seats.refused
                return
            if seats.taken >= seats.count:
                await change(self._clock, LOOK_S, self._freed)

    async def make_room(
        self, park: Callable[[], Awaitable[None]], unpark: Callable[[], Awaitable[None]]
    ) -> None:
        """If somebody wants the seat: park, let them have it, and come back when there is one."""
        if not self.wanted:
            return
        await park()
        self.leave()
        await self.take()
        await unpark()

    def leave(self) -> None:
        """Give the seat back, if it is taken."""
        if self._taken:
            self._taken = False
            self._seats.release(self._id)

    def close(self) -> None:
        """Give the seat back for good."""
        self.leave()
        self._seats.forget(self._freed.set)
