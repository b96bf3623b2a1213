"""The device's turns on the event loop: one user at a time, chosen by `core.turns`.

Every engine step of every session, on either dialect, happens inside `async with device.turn(...)`.
The holder samples its controls after it was let in, so what waits is not yet decided. A device has
no task of its own: whoever leaves lets the next one in. Work that can wait says so with `yields`:
it is asked to leave early as soon as somebody else wants the device.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from worldline.core.clock import Clock
from worldline.core.turns import Turns

ACTIVE_S: Final = 3.0  # whoever had a turn so recently will want the next one soon


class _Last(NamedTuple):
    """Somebody's last turn: when it was over, and its length in seconds."""

    ended: float
    length_s: float


class _Asked(NamedTuple):
    """Somebody who waits: done once it may begin, and whom to tell when others want the device."""

    admitted: asyncio.Future[None]
    yields: Callable[[], object] | None


class Turn(NamedTuple):
    """A turn that was granted: `waited_s` is the time since it was asked for."""

    waited_s: float


class Device:
    """Grants turns; made on the event loop it is used on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns = Turns()
        self._waiting: dict[str, _Asked] = {}
        self._user: str | None = None
        self._busy_s = 0.0
        self._last: dict[str, _Last] = {}
        self._granted = 0
        self._yields: Callable[[], object] | None = None

    @property
    def user(self) -> str | None:
        """Whose turn it is."""
        return self._user

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return len(self._waiting)

    @property
    def turns(self) -> int:
        """Turns that were granted so far."""
        return self._granted

    @property
    def busy_s(self) -> float:
        """Seconds of all turns that are over."""
        return self._busy_s

    @asynccontextmanager
    async def turn(
        self, id: str, *, deadline: float, yields: Callable[[], object] | None = None
    ) -> AsyncGenerator[Turn]:
        """Hold the device; nobody else does until this is left. One turn per `id` at a time.

        `deadline` is when the work should be over, in seconds of the clock. `yields` is called once
        when somebody asks during this turn; such turns count for nobody's plans (`others_s`).
        Cancelled while waiting, it leaves no trace.
        """
        assert id not in self._waiting and id != self._user, f"{id} has asked already"
        asked = self._clock.now()
        self._turns.ask(id, now=asked, deadline=deadline)
        try:
            await self._let_in(id, yields)
        except BaseException:
            if self._user == id:  # let in, and gone before it knew
                self._leave()
            raise
        began = self._clock.now()
        self._granted += 1
        try:
            yield Turn(began - asked)
        finally:
            now = self._clock.now()
            self._busy_s += now - began
            if yields is None:
                self._last[id] = _Last(now, now - began)
            self._leave()

    def others_s(self, id: str) -> float:
        """Seconds that `id` may have to wait: a turn of everybody else who is active."""
        now = self._clock.now()
        return sum(
            last.length_s
            for other, last in self._last.items()
            if other != id and now - last.ended <= ACTIVE_S
        )

    def forget(self, id: str) -> None:
        """Keep nothing of somebody who will not come again."""
        self._turns.forget(id)
        self._last.pop(id, None)

    async def _let_in(self, id: str, yields: Callable[[], object] | None) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[id] = _Asked(admitted, yields)
        if self._yields is not None:
            ask, self._yields = self._yields, None
            ask()
        self._choose()
        try:
            await admitted
        finally:
            self._waiting.pop(id, None)
            self._turns.withdraw(id)

    def _leave(self) -> None:
        self._user = self._yields = None
        self._choose()

    def _choose(self) -> None:
        """Let in whoever is first, if the device is free."""
        while self._user is None:
            chosen = self._turns.next()
            if chosen is None:
                return
            asked = self._waiting[chosen]
            if not asked.admitted.done():  # else it was cancelled, and has not run since
                self._user, self._yields = chosen, asked.yields
                asked.admitted.set_result(None)
