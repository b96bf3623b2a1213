"""The device's turns on the event loop: one user at a time, chosen by `core.turns`.

Every engine step of every session, on either dialect, happens inside `async with device.turn(...)`.
The holder samples its controls after it was let in, so what waits is not yet decided. A device has
no task of its own: whoever leaves lets the next one in. Work that can wait says so with `yields`:
it is asked to leave early as soon as somebody else wants the device.

Where an engine has several replicas they work at the same time: a lane of turns for each, and every
session keeps to that of the replica which has it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from worldline.core.clock import Clock
from worldline.core.turns import Turns

ACTIVE_S: Final = 3.0  # whoever had a turn so recently will want the next one soon


class _Last(NamedTuple):
    """Somebody's last turn: when it was over, its length in seconds, and on which lane."""

    ended: float
    length_s: float
    lane: int


class _Asked(NamedTuple):
    """Somebody who waits: done once it may begin, and whom to tell when others want the device."""

    admitted: asyncio.Future[None]
    yields: Callable[[], object] | None


class Turn(NamedTuple):
    """A turn that was granted: `waited_s` is the time since it was asked for."""

    waited_s: float


class _Lane:
    """The turns of one replica, and whose turn it is."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.user: str | None = None
        self.yields: Callable[[], object] | None = None


def _only_lane(id: str) -> int:
    return 0


class Device:
    """Grants turns; made on the event loop it is used on."""

    def __init__(self, clock: Clock, lane_of: Callable[[str], int] = _only_lane) -> None:
        """`lane_of` tells which replica has a session, or is going to have it."""
        self._clock = clock
        self._lane_of = lane_of
        self._lanes: defaultdict[int, _Lane] = defaultdict(_Lane)
        self._waiting: dict[str, _Asked] = {}
        self._busy_s = 0.0
        self._last: dict[str, _Last] = {}
        self._granted = 0

    @property
    def user(self) -> str | None:
        """Whose turn it is; of several lanes, one of them."""
        return next((lane.user for lane in self._lanes.values() if lane.user is not None), None)

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
        number = self._lane_of(id)
        lane = self._lanes[number]
        assert id not in self._waiting and id != lane.user, f"{id} has asked already"
        asked = self._clock.now()
        lane.turns.ask(id, now=asked, deadline=deadline)
        try:
            await self._let_in(lane, id, yields)
        except BaseException:
            if lane.user == id:  # let in, and gone before it knew
                self._leave(lane)
            raise
        began = self._clock.now()
        self._granted += 1
        try:
            yield Turn(began - asked)
        finally:
            now = self._clock.now()
            self._busy_s += now - began
            if yields is None:
                self._last[id] = _Last(now, now - began, number)
            self._leave(lane)

    def others_s(self, id: str) -> float:
        """Seconds that `id` may have to wait: a turn of everybody else who is active."""
        now, lane = self._clock.now(), self._lane_of(id)
        return sum(
            last.length_s
            for other, last in self._last.items()
            if other != id and last.lane == lane and now - last.ended <= ACTIVE_S
        )

    def forget(self, id: str) -> None:
        """Keep nothing of somebody who will not come again."""
        for lane in self._lanes.values():
            lane.turns.forget(id)
        self._last.pop(id, None)

    async def _let_in(self, lane: _Lane, id: str, yields: Callable[[], object] | None) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[id] = _Asked(admitted, yields)
        if lane.yields is not None:
            ask, lane.yields = lane.yields, None
            ask()
        self._choose(lane)
        try:
            await admitted
        finally:
            self._waiting.pop(id, None)
            lane.turns.withdraw(id)

    def _leave(self, lane: _Lane) -> None:
        lane.user = lane.yields = None
        self._choose(lane)

    def _choose(self, lane: _Lane) -> None:
        """Let in whoever is first, if the replica is free."""
        while lane.user is None:
            chosen = lane.turns.next()
            if chosen is None:
                return
            asked = self._waiting[chosen]
            if not asked.admitted.done():  # else it was cancelled, and has not run since
                lane.user, lane.yields = chosen, asked.yields
                asked.admitted.set_result(None)
