"""The life of one room: picture, seat, world, leases, and the end that everybody is told.

    prove the picture -> wait for the seat -> open -> run, with the leases kept -> told -> closed

Knows no other room: who gets a seat and who may come back is the house's affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from worldline.core.errors import InputError, UnknownWorldError, WorldlineError
from worldline.core.live.codes import ByeCode, failure
from worldline.core.live.server import Notice
from worldline.core.walk import WorldFile
from worldline.server.live import entering
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.files import remarks, wish_of
from worldline.server.live.guest import Ending, ending
from worldline.server.live.keeper import keep
from worldline.server.live.leases import Due, agenda, terms_of
from worldline.server.live.room import Room
from worldline.server.live.seams import World
from worldline.server.logs import log
from worldline.server.services import Services
from worldline.server.waiting import stop, within

logger = logging.getLogger("worldline.server")

RETRY_MS: Final = 5000
PLAY_OUT_S: Final = 2.0  # for the last pictures to leave
_ANNOUNCED: Final = {
    "idle": "the world closes unless an input comes",
    "lifetime": "the world has reached its maximum lifetime",
    "holder_gone": "the world waits for whoever held the controls; ask for them to go on",
}

MakeWorld = Callable[[Services, Room, entering.Pixels | None], tuple[World, Broadcast]]


class Host:
    """Entertains rooms, any number at a time."""

    def __init__(self, services: Services, make: MakeWorld) -> None:
        self._services = services
        self._config = services.config
        self._clock = services.clock
        self._make = make
        self._terms = terms_of(services.config)

    async def entertain(self, room: Room, *, draining: Callable[[], bool]) -> None:
        """One room from `enter` to its end; whatever ends it, everybody in it is told why."""
        work = asyncio.create_task(self._work(room))
        keeper = asyncio.create_task(
            keep(
                self._clock,
                room.changed,
                agenda=lambda: agenda(self._terms, room.tenancy),
                act=lambda due: self._act(room, due),
            )
        )
        try:
            await asyncio.wait({work, keeper, room.over}, return_when=asyncio.FIRST_COMPLETED)
            # A keeper only ends by our own mistake; a world without leases would never end.
            ended = keeper if keeper.done() and not work.done() else work
            self._see_off(room, ended, draining())
        finally:
            try:
                await stop(work, keeper)
            finally:
                await self._clear(room)

    async def _work(self, room: Room) -> None:
        """Return when the world is complete. Raises: what went wrong."""
        picture = None if room.beginning.fork is not None else await self._unpack(room)
        world, broadcast = self._make(self._services, room, picture)
        del picture
        room.furnish(world, broadcast)
        broadcast.opened(await world.open())
        log(logger, logging.INFO, "world opened", world=room.id)
        room.opened()
        if (file := room.beginning.file) is not None:
            self._remark(room, file)
        await world.run()
        await self._play_out(broadcast)

    async def _unpack(self, room: Room) -> entering.Pixels:
        """Prove that it can be, wait for the seat, and take out what the world begins with."""
        config, pool, info = self._config, self._services.readers, self._services.engine.info
        await entering.prove(room.enter, info=info, config=config, pool=pool)
        await room.seated.wait()
        file = await entering.file_of(room.enter, info=info, config=config, pool=pool)
        if file is not None:
            room.enter = wish_of(room.enter, file)
        picture = await entering.pixels(room.enter, config=config, pool=pool)
        room.begin(file)
        return picture

    def _remark(self, room: Room, file: WorldFile) -> None:
        other = remarks(file, self._services.engine.info)
        if other:
            room.tell(Notice(code="other_model", message="; ".join(other)))

    async def _play_out(self, broadcast: Broadcast) -> None:
        """Let the last pictures leave before anybody is told goodbye."""
        with suppress(TimeoutError):
            await within(self._clock, PLAY_OUT_S, _settled(broadcast))

    def _act(self, room: Room, due: Due) -> None:
        if due.what == "park":
            room.park()
            return
        if due.what == "lend":
            room.lend()
            return
        assert due.term is not None, "only what waits has no term"
        if due.term == "idle" and room.world is not None and room.world.recovering:
            room.stir()  # nobody walks where nothing moves
            return
        if due.what == "announce":
            left = max(0, round((due.ends - self._clock.now()) * 1000))
            room.tell(Notice(code=due.term, message=_ANNOUNCED[due.term], in_ms=left))
        elif due.term != "holder_gone" or not room.pass_on():
            room.end(ending(due.term))

    def _see_off(self, room: Room, work: asyncio.Task[None], draining: bool) -> None:
        """Tell everybody the end at once, before the engine has let go."""
        error = work.exception() if work.done() and not work.cancelled() else None
        refused = False
        if isinstance(error, InputError) and not room.is_open and not room.over.done():
            self._refuse(room, error)
            refused = True
        if not room.over.done():
            done: ByeCode = "draining" if draining else "complete"
            room.end(ending(done) if error is None else self._broken(room, error))
        how = room.over.result()
        log(logger, logging.INFO, "world over", world=room.id, code=how.message.code)
        if room.seated.is_set():
            self._services.metrics.count_session("refused" if refused else how.message.code)
        for guest in room.guests.values():
            guest.end(how)

    def _refuse(self, room: Room, error: InputError) -> None:
        """What was asked for cannot be; the connection may ask for something else, so often."""
        self._services.metrics.count_error(error.code)
        holder = room.guests.pop(room.holder or "", None)
        if holder is not None:
            if room.broadcast is not None:
                room.broadcast.detach(holder.viewer)
            holder.room = None
            holder.refusals += 1
            if holder.refusals >= self._config.init_attempts:
                holder.end(ending(error))
            else:
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
            elif room.beginning.fork is not None:  # its session is there already
                await self._services.engine.close(room.id)
        except WorldlineError as error:
            log(logger, logging.ERROR, "close failed", world=room.id, error=str(error))
        finally:
            if room.broadcast is not None:
                await room.broadcast.close()


async def _settled(broadcast: Broadcast) -> None:
    await broadcast.settle()
    for viewer in broadcast.viewers:
        await viewer.settle()
