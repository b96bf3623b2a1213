"""All live worlds of the process: who may enter, who waits, who comes back, and how it all ends.

    enter -> line -> seat -> opening -> live ... -> over -> the engine lets go -> seat free -> line

A room has one task here from `enter` to its end, whatever becomes of its connections. Seats are
shared with the mainline endpoint. A live world is never ended for another.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from worldline.core.errors import (
    CapacityError,
    DrainingError,
    InputError,
    LimitError,
    UnknownWorldError,
    WorldlineError,
)
from worldline.core.live.client import Enter
from worldline.core.live.codes import ByeCode, failure
from worldline.core.live.server import Notice, Queued, Seat
from worldline.server.live import entering
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.guest import Ending, Guest, ending
from worldline.server.live.keeper import keep
from worldline.server.live.leases import Due, agenda, terms_of
from worldline.server.live.line import Line
from worldline.server.live.room import Room, World
from worldline.server.live.viewer import Viewer
from worldline.server.logs import log
from worldline.server.services import Services
from worldline.server.waiting import stop, within
from worldline.server.warmup import State

logger = logging.getLogger("worldline.server")

RETRY_MS: Final = 5000
PLAY_OUT_S: Final = 2.0
_ANNOUNCED: Final = {
    "idle": "the world closes unless an input comes",
    "lifetime": "the world has reached its maximum lifetime",
    "holder_gone": "the world waits for whoever held the controls; ask for them to go on",
}

MakeWorld = Callable[[Services, Room, entering.Pixels], tuple[World, Broadcast]]


class House:
    """Made when the app starts; `close` returns once no world and no task is left."""

    def __init__(self, services: Services, make: MakeWorld) -> None:
        self._services = services
        self._config = services.config
        self._clock = services.clock
        self._make = make
        self._rooms: dict[str, Room] = {}
        self._keys: dict[bytes, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._line = Line(self._config.max_queue)
        self._terms = terms_of(self._config)
        self._draining = False
        services.seats.tell_when_free(self._fill)
        self._opening = asyncio.create_task(self._when_ready())

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

    def enter(self, guest: Guest, enter: Enter) -> Room:
        """A place for a new world; `seat` or `queued` is on its way when this returns.

        Raises: PromptError, ConfigError, DrainingError, LimitError, CapacityError.
        """
        self._check_open()
        wish = entering.checked(enter, info=self._services.engine.info, config=self._config)
        self._check_share(guest.client)
        if self._line.full:
            raise CapacityError(
                "all seats are taken, and too many wait",
                expected=f"fewer than {self._line.limit} in line",
            )
        room = Room(
            secrets.token_urlsafe(9),
            wish,
            holder=guest,
            clock=self._clock,
            new_key=self._new_key,
        )
        self._rooms[room.id] = room
        self._line.join(room.id)
        self._fill()
        if not room.seated.is_set():
            self._tell_place(room, self._line.places()[room.id])
        guest.room = room
        task = asyncio.create_task(self._live(room), name=f"world-{room.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return room

    def rejoin(self, guest: Guest, token: str) -> Room:
        """The world a token belongs to, with its controls if they were not given away meanwhile.

        A connection that still holds them is closed: the newest wins. Raises: UnknownWorldError.
        """
        key = _digest(token)
        room = self._rooms.get(self._keys.get(key, ""))
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
        """A connection is lost. Who waited in line loses the place; a world waits for its holder.

        A world that nobody can come back to ends at once.
        """
        room, guest.room = guest.room, None
        if room is None:
            return
        room.remove(guest)
        if not room.seated.is_set() or (not self._config.grace_s and room.is_gone):
            room.end(ending("left"))

    def leave(self, guest: Guest) -> None:
        """`leave` was said: the holder ends the world, anybody else stops watching."""
        guest.end(ending("left"))
        room = guest.room
        if room is None:
            return
        if room.holder == guest.id:
            room.end(ending("left"))
        else:
            room.remove(guest)

    async def drain(self) -> None:
        """Take nobody in, say so, and let worlds go on for `drain_s`; then end what is left."""
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
        await self._emptied()

    async def close(self) -> None:
        """End every world, and return once the engine holds nothing of any."""
        self._draining = True
        self._refuse_all(DrainingError("the server is being stopped"))
        for room in self.rooms:
            room.end(ending("stopped"))
        await stop(self._opening)
        await self._emptied()

    async def _emptied(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _when_ready(self) -> None:
        """Open the doors after the warm-up; when it failed, nobody needs to wait."""
        readiness = self._services.readiness
        await readiness.decided()
        if readiness.state is State.FAILED:
            self._refuse_all(CapacityError("the server cannot serve", got=readiness.reason))
        self._fill()

    def _check_open(self) -> None:
        readiness = self._services.readiness
        if self._draining:
            raise DrainingError("the server is being stopped", expected="another server, or later")
        if readiness.state is State.FAILED or not self._services.engine.alive():
            raise CapacityError("the server cannot serve", got=readiness.reason)

    def _check_share(self, client: str) -> None:
        limit = self._config.worlds_per_client
        if limit and sum(room.client == client for room in self.rooms) >= limit:
            raise LimitError("too many worlds of one client", expected=f"at most {limit}")

    def _fill(self) -> None:
        """Give free seats to those who wait longest, and tell the others their new places."""
        if self._services.readiness.state is not State.READY:
            return
        moved = False
        while (first := self._line.first) is not None and self._services.seats.take(first):
            self._line.leave(first)
            self._seat(self._rooms[first])
            moved = True
        if moved:
            self._tell_places()

    def _seat(self, room: Room) -> None:
        for guest in room.guests.values():
            self._new_key(room, guest)
        room.seated.set()

    def _new_key(self, room: Room, guest: Guest) -> None:
        """The holder gets a token; older ones only watch from now on."""
        token = secrets.token_urlsafe(32)
        room.key = _digest(token)
        self._keys[room.key] = room.id
        guest.send(Seat(world=room.id, viewer=guest.id, token=token))

    def _tell_places(self) -> None:
        for name, place in self._line.places().items():
            self._tell_place(self._rooms[name], place)

    def _tell_place(self, room: Room, place: int) -> None:
        room.tell(Queued(position=place, ahead=place - 1, retry_after_ms=RETRY_MS))

    def _refuse_all(self, error: WorldlineError) -> None:
        for name in self._line.places():
            self._rooms[name].end(ending(error, retry_after_ms=RETRY_MS))

    async def _live(self, room: Room) -> None:
        """One room from `enter` to its end; whatever ends it, everybody in it is told why."""
        work = asyncio.create_task(self._work(room))
        try:
            await asyncio.wait({work, room.over}, return_when=asyncio.FIRST_COMPLETED)
            self._see_off(room, work)
        finally:
            try:
                await stop(work)
            finally:
                await self._clear(room)

    async def _work(self, room: Room) -> None:
        """Return when the world is complete. Raises: what went wrong."""
        config, pool = self._config, self._services.readers
        await entering.prove(room.enter, config=config, pool=pool)
        await room.seated.wait()
        picture = await entering.pixels(room.enter, config=config, pool=pool)
        room.forget_picture()
        world, broadcast = self._make(self._services, room, picture)
        del picture
        room.furnish(world, broadcast)
        broadcast.opened(await world.open())
        log(logger, logging.INFO, "world opened", world=room.id)
        room.opened()
        keeper = asyncio.create_task(
            keep(
                self._clock,
                room.changed,
                agenda=lambda: agenda(self._terms, room.tenancy),
                act=lambda due: self._act(room, due),
            )
        )
        try:
            await world.run()
            await self._play_out(broadcast)
        finally:
            await stop(keeper)

    async def _play_out(self, broadcast: Broadcast) -> None:
        """Let the last pictures leave before anybody is told goodbye."""
        viewers = broadcast.viewers
        with suppress(TimeoutError):
            await within(self._clock, PLAY_OUT_S, _settled(viewers))

    def _act(self, room: Room, due: Due) -> None:
        if due.what == "park":
            room.park()
            return
        assert due.term is not None, "only parking has no term"
        if due.what == "announce":
            left = max(0, round((due.ends - self._clock.now()) * 1000))
            room.tell(Notice(code=due.term, message=_ANNOUNCED[due.term], in_ms=left))
        elif due.term != "holder_gone" or not room.pass_on():
            room.end(ending(due.term))

    def _see_off(self, room: Room, work: asyncio.Task[None]) -> None:
        """Tell everybody the end at once, before the engine has let go."""
        error = work.exception() if work.done() and not work.cancelled() else None
        if isinstance(error, InputError) and not room.is_open and not room.over.done():
            self._refuse(room, error)
        if not room.over.done():
            done: ByeCode = "draining" if self._draining else "complete"
            room.end(ending(done) if error is None else self._broken(room, error))
        how = room.over.result()
        log(logger, logging.INFO, "world over", world=room.id, code=how.message.code)
        self._services.metrics.count_session(how.message.code)
        for guest in room.guests.values():
            guest.end(how)

    def _refuse(self, room: Room, error: InputError) -> None:
        """What was asked for cannot be; the connection may ask for something else."""
        self._services.metrics.count_error(error.code)
        holder = room.guests.pop(room.holder or "", None)
        if holder is not None:
            holder.room = None
            holder.send(failure(error))
        room.end(ending(UnknownWorldError("this world was never opened")))

    def _broken(self, room: Room, error: BaseException) -> Ending:
        if not isinstance(error, WorldlineError):
            fields = {"fields": {"world": room.id}}
            logger.error("world failed", exc_info=error, extra=fields)
            error = WorldlineError(f"{type(error).__name__}: {error}")
        self._services.metrics.count_error(error.code)
        return ending(error, retry_after_ms=RETRY_MS if error.retryable else None)

    async def _clear(self, room: Room) -> None:
        """Give everything back in reverse order; the seat only when the engine has let go."""
        try:
            if room.world is not None:
                await room.world.close(room.over.result().message.code)
        except WorldlineError as error:
            log(logger, logging.ERROR, "close failed", world=room.id, error=str(error))
        finally:
            try:
                if room.broadcast is not None:
                    await room.broadcast.close()
            finally:
                self._forget(room)

    def _forget(self, room: Room) -> None:
        for guest in room.guests.values():
            guest.room = None
        del self._rooms[room.id]
        self._keys = {key: name for key, name in self._keys.items() if name != room.id}
        if self._line.leave(room.id):
            self._tell_places()
        if room.seated.is_set():
            self._services.seats.release(room.id)


async def _settled(viewers: tuple[Viewer, ...]) -> None:
    for viewer in viewers:
        await viewer.settle()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
