"""What there is, and what there should not be: gauges of everything live, and leak counters.

A leak is what nobody owns: a session of the engine without a seat, shared memory without a session;
and, whenever nobody is here at all, a task of ours that still runs, or bytes of the device beyond
those that were in use when nobody had been here yet. Tests and alerts want every leak to be 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from worldline.core.errors import WorldlineError
from worldline.core.live.shared import State
from worldline.runtime.handle import SLOTS_PER_SESSION
from worldline.runtime.protocol import Counts
from worldline.server.live.house import House
from worldline.server.services import Services
from worldline.server.waiting import stop
from worldline.server.warmup import State as Warmth

if TYPE_CHECKING:
    from worldline.server.films.studio import Studio

COUNT_S: Final = 2.0  # a scrape waits no longer for an engine that is busy; the last count stands
_OURS: Final = str(Path(__file__).parent)


class Leaks(NamedTuple):
    """What nobody owns. `slots` are pieces of shared memory."""

    sessions: int = 0
    tasks: int = 0
    slots: int = 0
    device_bytes: int = 0


class Census:
    """Counts on demand; registers its gauges when it is made."""

    def __init__(self, services: Services, house: House) -> None:
        self._services = services
        self._house = house
        self._counts = Counts()
        self._leaks = Leaks()
        self._at_first: int | None = None  # device bytes before the first visitor
        self._asking: asyncio.Task[None] | None = None
        self._own: set[asyncio.Task[None]] = set()  # timers of ours that are no leaks
        self._studio: Studio | None = None
        self._register()

    def count_films(self, studio: Studio | None) -> None:
        """What the studio does and holds is its own from now on."""
        self._studio = studio

    @property
    def leaks(self) -> Leaks:
        """What nobody owned when `count` was last called."""
        return self._leaks

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is here who could own anything."""
        services = self._services
        here = services.sockets.taken or services.seats.taken or self._house.rooms
        here = here or self._films
        return not here and services.readiness.state is not Warmth.WARMING

    async def count(self) -> Leaks:
        """Ask the engine, and look at ourselves; one question at a time, however many ask.

        An engine that is dead, or busy for longer than `COUNT_S`, leaves the last counts.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        timer = asyncio.create_task(self._services.clock.sleep(COUNT_S))
        self._own.add(timer)
        try:
            # Not cancelled when it takes too long: a thread waits for the engine in any case.
            await asyncio.wait({self._asking, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(timer)
            self._own.discard(timer)
        return self._leaks

    async def close(self) -> None:
        """Wait for a question that is still out."""
        if self._asking is not None:
            await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        services = self._services
        films = self._films
        warm = services.readiness.state is not Warmth.WARMING
        seats = services.seats.taken
        try:
            self._counts = await services.engine.counts()
        except WorldlineError:
            return
        if warm:
            # A seat is free only after its session is gone: the larger number owned what was seen.
            self._judge(max(seats, services.seats.taken) + max(films, self._films))

    @property
    def _films(self) -> int:
        """Sessions of films, which have no seat while they are parked."""
        return 0 if self._studio is None else self._studio.busy

    def _judge(self, seats: int) -> None:
        counts, quiet = self._counts, self.is_quiet
        in_use = counts.device_bytes - counts.ring_bytes if counts.device_bytes else 0
        if quiet and self._at_first is None:
            self._at_first = in_use
        grown = max(0, in_use - (self._at_first or 0)) if quiet else 0
        self._leaks = Leaks(
            sessions=max(0, counts.sessions - seats),
            tasks=len(self._tasks()) if quiet else 0,
            slots=max(0, counts.slots - SLOTS_PER_SESSION * counts.sessions),
            device_bytes=grown + (counts.parked_bytes if quiet else 0),
        )

    def _register(self) -> None:
        house, services, metrics = self._house, self._services, self._services.metrics
        states = {state: partial(self._in_state, state) for state in get_args(State)}
        metrics.watch_each("worlds", "Worlds by state", "state", states)
        metrics.watch("viewers", "Connections that see a world", self._viewers)
        metrics.watch("queue", "Visitors in line", lambda: house.waiting)
        metrics.watch("draining", "1 while the server stops", lambda: float(house.draining))
        metrics.watch("traces", "Chrome traces in memory", lambda: len(services.traces.all()))
        device = services.device
        metrics.watch("device_waiting", "Sessions that want a turn", lambda: device.waiting)
        metrics.watch_total("device_turns", "Turns that were granted", lambda: device.turns)
        metrics.watch_total("device_busy_seconds", "Time of all turns", lambda: device.busy_s)
        metrics.watch("tasks", "Tasks of the server that run", lambda: len(self._tasks()))
        engine = {name: partial(self._held, name) for name in Counts.__struct_fields__}
        metrics.watch_each("engine", "What the engine holds", "what", engine)
        leaks: dict[str, Callable[[], float]] = {
            name: partial(self._leaked, name) for name in Leaks._fields
        }
        metrics.watch_each("leaked", "What nobody owns; anything but 0 is a fault", "what", leaks)

    def _tasks(self) -> list[asyncio.Task[object]]:
        mine = {asyncio.current_task(), self._asking, *self._own}
        if self._studio is not None:
            mine |= self._studio.tasks
        return [task for task in asyncio.all_tasks() if task not in mine and _is_ours(task)]

    def _in_state(self, state: State) -> float:
        return sum(room.state == state for room in self._house.rooms)

    def _viewers(self) -> float:
        return sum(len(room.guests) for room in self._house.rooms)

    def _held(self, name: str) -> float:
        return getattr(self._counts, name)

    def _leaked(self, name: str) -> float:
        return getattr(self._leaks, name)


def _is_ours(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_OURS)
