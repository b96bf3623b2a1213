"""All live worlds of the process: who may enter, who waits, who comes back, and how it all ends.

    enter -> line -> seat -> opening -> live ... -> over -> the engine lets go -> seat free -> line

A room has one task here from `enter` to its end, whatever becomes of its connections. Seats are
shared with the mainline endpoint. A live world is never ended for another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Final

import msgspec

from worldline.core.errors import (
    CapacityError,
    ConfigError,
    DrainingError,
    LimitError,
    UnknownWorldError,
    WorldlineError,
)
from worldline.core.live.client import Enter
from worldline.core.live.server import Notice, Queued, Seat
from worldline.server.live import entering
from worldline.server.live.beginning import Beginning, Fork
from worldline.server.live.guest import Guest, ending
from worldline.server.live.host import PLAY_OUT_S, RETRY_MS, Host, MakeWorld
from worldline.server.live.line import Line
from worldline.server.live.room import Room
from worldline.server.live.tickets import Tickets, digest
from worldline.server.services import Services, is_ready
from worldline.server.waiting import within
from worldline.server.warmup import State

logger = logging.getLogger("worldline.server")

FAREWELL_S: Final = 2.0  # for a last word to a peer that may not read


class House:
    """Made when the app starts; `close` returns once no world and no task is left."""

    def __init__(self, services: Services, make: MakeWorld) -> None:
        self._services = services
        self._config = services.config
        self._clock = services.clock
        self._host = Host(services, make)
        self._rooms: dict[str, Room] = {}
        self._tickets = Tickets()
        self._tasks: set[asyncio.Task[None]] = set()
        self._guests: set[Guest] = set()
        self._left = asyncio.Event()
        self._line = Line(self._config.max_queue)
        self._lent: set[str] = set()
        self._draining = False
        services.seats.tell_when_free(self._fill)
        services.readiness.tell_when_decided(self._warm)

    @property
    def rooms(self) -> tuple[Room, ...]:
        """Every world there is, waiting ones too."""
        return tuple(self._rooms.values())

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @property
    def draining(self) -> bool:
        """Whether nobody is taken in any more."""
        return self._draining

    @property
    def guests(self) -> int:
        """Connections, those without a world too."""
        return len(self._guests)

    def welcome(self, guest: Guest) -> None:
        """A connection begins; `goodbye` ends it."""
        self._guests.add(guest)

    def goodbye(self, guest: Guest) -> None:
        """A connection has ended, and all its tasks."""
        self._guests.discard(guest)
        self._left.set()

    def enter(self, guest: Guest, enter: Enter) -> Room:
        """A place for a new world; `seat` or `queued` is on its way when this returns.

        Raises: PromptError, ConfigError, DrainingError, LimitError, CapacityError.
        """
        self._check_open()
        wish = entering.checked(enter, info=self._services.engine.info, config=self._config)
        if (place := self._place_of(guest, wish)) is not None:
            return place
        self._check_share(guest.client)
        if self._line.full:
            raise CapacityError(
                "all seats are taken, and too many wait",
                expected=f"fewer than {self._line.limit} in line",
            )
        self._check_room_for(_size(wish))
        room = Room(
            secrets.token_urlsafe(9),
            wish,
            holder=guest,
            client=guest.client,
            clock=self._clock,
            desk=self,
        )
        self._rooms[room.id] = room
        self._line.join(room.id)
        self._fill()
        if not room.seated.is_set():
            self._tell_place(room, self._line.places()[room.id])
            self._ask_for_seats()
            if self._services.readiness.state is State.WARMING:
                room.tell(Notice(code="warming_up", message="the model is not ready yet"))
        guest.room = room
        self._begin(room)
        return room

    def rejoin(self, guest: Guest, token: str) -> Room:
        """The world a token belongs to, with its controls if they were not given away meanwhile.

        A connection that still holds them is closed: the newest wins. Raises: UnknownWorldError.
        """
        key = digest(token)
        room = self._rooms.get(self._tickets.world_of(token))
        if room is None or room.over.done():
            raise UnknownWorldError("this world has ended, or the token is wrong")
        holds = room.key == key
        if holds and room.holder is not None:
            old = room.guests[room.holder]
            old.end(ending("taken_over"))
            room.remove(old)
        guest.send(Seat(world=room.id, viewer=guest.id, token=token))
        guest.room = room
        room.add(guest, holds=holds)
        return room

    def watch(self, guest: Guest, world: str) -> Room:
        """Somebody else's world. Raises: UnknownWorldError, LimitError."""
        room = self._rooms.get(world)
        if room is None or room.over.done() or not room.enter.spectators or room.world is None:
            raise UnknownWorldError("there is no such world to watch")
        if room.watching >= self._config.max_viewers:
            raise LimitError("this world has too many viewers", expected=self._config.max_viewers)
        guest.send(Seat(world=room.id, viewer=guest.id))
        guest.room = room
        room.add(guest, holds=False)
        return room

    def gone(self, guest: Guest) -> None:
        """A connection is lost: a world, or a place in line, waits for its holder.

        One that nobody can come back to ends at once.
        """
        room, guest.room = guest.room, None
        if room is None:
            return
        room.remove(guest)
        if room.is_gone and not self._config.grace_s:
            room.end(ending("left"))

    def leave(self, guest: Guest) -> None:
        """`leave` was said: the holder ends the world, anybody else stops watching."""
        room = guest.room
        if room is not None and room.holder == guest.id:
            room.end(ending("left"))
        guest.end(ending("left"))
        if room is not None and room.holder != guest.id:
            room.remove(guest)

    def reserve(self, client: str) -> str:
        """See `room.Desk`: a branch waits in no line, and those in line go first."""
        self._check_open()
        self._check_share(client)
        if not self._config.grace_s:
            raise ConfigError("nobody could come to a branch", expected="the setting grace_s")
        name = secrets.token_urlsafe(9)
        if len(self._line) or not self._services.seats.take(name):
            raise CapacityError("all seats are taken", expected="a free seat for the branch")
        return name

    def found(self, name: str, fork: Fork, *, enter: Enter, client: str, picture: bytes) -> str:
        """See `room.Desk`: nobody is in it yet, and it waits as one whose holder is gone."""
        enter = msgspec.structs.replace(enter, seed=fork.start.seed, max_chunks=None)
        beginning, clock = Beginning(picture=picture, fork=fork), self._clock
        branch = Room(
            name, enter, holder=None, client=client, clock=clock, desk=self, beginning=beginning
        )
        self._rooms[name] = branch
        branch.seated.set()
        self._begin(branch)
        if self._draining:
            branch.end(ending("draining"))
        return self._key_of(branch)

    def give_up(self, name: str) -> None:
        """See `room.Desk`."""
        self._services.seats.release(name)

    def claim(self, room: Room) -> bool:
        """See `room.Desk`."""
        if room.id in self._lent:
            if comes := room.id not in self._line:
                self._line.join_first(room.id)
            self._fill()  # also for one that stood in line and was away when a seat was free
            place = self._line.places().get(room.id)
            if comes and place is not None:
                self._tell_places()
            elif place is not None:
                self._tell_place(room, place)
        return room.id not in self._lent

    def lend(self, room: Room) -> None:
        """See `room.Desk`: only where that is allowed, somebody waits, and few have done so."""
        config = self._config
        if room.id in self._lent or not len(self._line) or len(self._lent) >= config.lend_seats:
            return
        self._lent.add(room.id)
        self._services.seats.release(room.id)  # and the first in line has it

    async def drain(self) -> None:
        """Take nobody in, say so, and let worlds go on for `drain_s`; then end what is left.

        `close` waits until that is gone.
        """
        self._draining = True
        self._refuse_all(DrainingError("the server is being stopped"))
        limit = self._config.drain_s
        notice = Notice(
            code="draining", message="the server is being stopped", in_ms=round(limit * 1000)
        )
        for room in self.rooms:
            room.tell(notice)
        with suppress(TimeoutError):
            await within(self._clock, limit, self._emptied())
        for room in self.rooms:
            room.drain()  # what is in flight is shown
        with suppress(TimeoutError):
            await within(self._clock, PLAY_OUT_S, self._emptied())
        for room in self.rooms:
            room.end(ending("draining"))

    async def close(self) -> None:
        """End every world and every connection; return once the engine holds nothing of any."""
        self._draining = True
        self._refuse_all(DrainingError("the server is being stopped"))
        for room in self.rooms:
            room.end(ending("stopped"))
        for guest in self._guests:
            guest.end(ending("stopped"))
        await self._emptied()
        with suppress(TimeoutError):
            await within(self._clock, FAREWELL_S + 1, self._deserted())

    async def _emptied(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _deserted(self) -> None:
        while self._guests:
            self._left.clear()
            await self._left.wait()

    def _warm(self) -> None:
        """Open the doors after a warm-up; when it failed, nobody needs to wait."""
        readiness = self._services.readiness
        if readiness.state is State.FAILED:
            self._refuse_all(CapacityError("the server cannot serve", got=readiness.reason))
        self._fill()

    def _check_open(self) -> None:
        readiness = self._services.readiness
        if self._draining:
            raise DrainingError("the server is being stopped", expected="another server, or later")
        if not self._services.engine.alive():
            raise CapacityError("the server cannot serve", got="the worker died")
        if readiness.state is State.FAILED:
            raise CapacityError("the server cannot serve", got=readiness.reason)

    def _place_of(self, guest: Guest, wish: Enter) -> Room | None:
        """The place in line that this client left without saying so, asking for the same."""
        for name in self._line.places():
            room = self._rooms[name]
            if room.is_gone and room.client == guest.client and room.enter == wish:
                guest.room = room
                room.add(guest, holds=True)
                self._fill()
                if name in self._line:
                    self._tell_place(room, self._line.places()[name])
                return room
        return None

    def _check_share(self, client: str) -> None:
        limit = self._config.worlds_per_client
        if limit and sum(room.client == client for room in self.rooms) >= limit:
            raise LimitError("too many worlds of one client", expected=f"at most {limit}")

    def _check_room_for(self, size: int) -> None:
        """Start pictures of those who wait are kept as they came, and not without end."""
        kept = sum(_size(room.enter) for room in self.rooms)
        limit = self._config.max_waiting_bytes
        if kept and kept + size > limit:
            raise CapacityError(
                "too many pictures wait", expected=f"at most {limit} bytes", got=kept + size
            )

    def _fill(self) -> None:
        """Give free seats to those who wait longest, and tell the others their new places.

        Without a worker nobody is seated: the line waits for the next one, where one comes.
        """
        engine = self._services.engine
        if not (engine.alive() or engine.revives()):
            self._refuse_all(CapacityError("the server cannot serve", got="the worker died"))
        if not is_ready(self._services):
            return
        moved = False
        for name in self._line.places():
            room = self._rooms[name]
            if room.is_gone:
                continue  # the place is kept for a while, the seat is not
            if not self._services.seats.take(name):
                break
            self._line.leave(name)
            self._seat(room)
            moved = True
        if moved:
            self._tell_places()

    def _seat(self, room: Room) -> None:
        if room.id in self._lent:
            self._lent.remove(room.id)
            room.seat_back()
            return
        for guest in room.guests.values():
            self.new_key(room, guest)
        room.seated.set()

    def new_key(self, room: Room, guest: Guest) -> None:
        """The holder gets a token; older ones only watch, and the oldest not even that."""
        guest.send(Seat(world=room.id, viewer=guest.id, token=self._key_of(room)))

    def _key_of(self, room: Room) -> str:
        token = self._tickets.issue(room.id)
        room.key = digest(token)
        return token

    def _begin(self, room: Room) -> None:
        task = asyncio.create_task(self._live(room), name=f"world-{room.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask_for_seats(self) -> None:
        """Somebody waits: worlds that are parked already may lend their seats."""
        for room in self.rooms:
            room.lend()

    def _tell_places(self) -> None:
        for name, place in self._line.places().items():
            self._tell_place(self._rooms[name], place)

    def _tell_place(self, room: Room, place: int) -> None:
        room.tell(Queued(position=place, ahead=place - 1, retry_after_ms=RETRY_MS))

    def _refuse_all(self, error: WorldlineError) -> None:
        for name in self._line.places():
            self._rooms[name].end(ending(error, retry_after_ms=RETRY_MS))

    async def _live(self, room: Room) -> None:
        try:
            await self._host.entertain(room, draining=lambda: self._draining)
        finally:
            self._forget(room)

    def _forget(self, room: Room) -> None:
        for guest in room.guests.values():
            guest.room = None
        del self._rooms[room.id]
        self._tickets.forget(room.id)
        if self._line.leave(room.id):
            self._tell_places()
        if room.id in self._lent:
            self._lent.remove(room.id)
        elif room.seated.is_set():
            self._services.seats.release(room.id)


def _size(enter: Enter) -> int:
    """Bytes of what a visitor brought."""
    return len(enter.image) + len(enter.world or b"")
