"""The queue at work: one film after the other, from the moment the model is warm until the end.

As many films at a time as the engine has replicas: they share the devices with live worlds, and
more would only delay each other. What ends a film is written down before the next one begins in its
place. When the server ends, or the worker under it, the film stays in the queue, first in line.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import time
from collections.abc import Callable
from typing import Final

from worldline.core.errors import CapacityError, WorkerDiedError, WorldlineError
from worldline.server.films.film import Film, Status
from worldline.server.films.guided import Guided
from worldline.server.films.making import Desk, Making
from worldline.server.films.walking import Walking
from worldline.server.logs import log
from worldline.server.services import Services, is_ready
from worldline.server.waiting import change, stop

logger = logging.getLogger("worldline.server.films")

LOOK_S: Final = 5.0  # until what could not be done is tried again
MOST_UPLOADS: Final = 4  # requests whose bodies are in memory at a time
MIN_FREE_BYTES: Final = 256 * 2**20
INTERNAL: Final = "internal"


class Studio:
    """Makes the films of one desk; made on the event loop, ended by `close`.

    `wall` tells the seconds since 1970.
    """

    def __init__(
        self, services: Services, desk: Desk, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.desk = desk
        self.uploads = asyncio.Semaphore(MOST_UPLOADS)
        self.now = wall
        self._services = services
        self._wake = asyncio.Event()
        self._making: dict[str, asyncio.Task[None]] = {}
        self._under_way: dict[str, Making] = {}
        self._counts: dict[Status, int] = {}
        self._bytes = 0
        services.readiness.tell_when_decided(self._wake.set)
        self._closed = False
        self._lines: set[asyncio.Task[None]] = set()
        self._running = asyncio.create_task(self._run())

    @property
    def busy(self) -> int:
        """Films that are being made, or are parked while others have the seats."""
        return len(self._making)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What runs as long as the studio is open."""
        return {self._running, *self._lines}

    @property
    def bytes(self) -> int:
        """Bytes of all films when something last changed."""
        return self._bytes

    def count(self, status: Status) -> int:
        """Films of that status when something last changed."""
        return self._counts.get(status, 0)

    def percent(self, film: Film) -> int:
        """How much of a film is made; of the one under way by the work and not by what is there."""
        if film.status != "in_progress":
            return film.progress
        making = self._under_way.get(film.id)
        return min(99, max(film.progress, making.percent if making else 0))

    def expires(self, film: Film) -> int | None:
        """When a film will be forgotten, in seconds since 1970; None: nobody knows yet."""
        keep_s = self._services.config.film_keep_s
        return int(film.ended + keep_s) if film.ended is not None and keep_s else None

    async def add(self, film: Film, picture: bytes) -> Film:
        """Put a film in line."""
        added = await self.desk.ask(functools.partial(self.desk.store.add, film, picture))
        await self._changed()
        self._wake.set()
        return added

    async def cancel(self, id: str) -> Film | None:
        """End a film that has not ended; None: there is none of that id.

        When this returns nobody makes it any more.
        """
        end = functools.partial(self.desk.store.end, id, "cancelled", self.now())
        film = await self.desk.ask(end)
        await stop(self._making.get(id))
        await self.desk.ask(functools.partial(self.desk.store.tidy, id))
        await self._changed()
        return film

    async def remove(self, id: str) -> None:
        """Cancel a film and forget it, files and all."""
        await self.cancel(id)
        await self.desk.ask(functools.partial(self.desk.store.remove, id))
        await self._changed()

    async def make_room(self) -> None:
        """Forget old films. Raises: CapacityError when there is no room for another."""
        await self._sweep()
        limit = self._services.config.max_films_bytes
        if limit and self._bytes >= limit:
            raise CapacityError(
                "films take too much room", expected=f"less than {limit} bytes", got=self._bytes
            )
        folder = self.desk.store.folder
        if (await self.desk.ask(lambda: shutil.disk_usage(folder))).free < MIN_FREE_BYTES:
            raise CapacityError("the disk is full", expected=f"{MIN_FREE_BYTES} bytes free")

    async def close(self) -> None:
        """Make no more films; those that are being made stay first in line."""
        self._closed = True
        await stop(self._running)

    async def _run(self) -> None:
        while True:
            try:
                await self._recover()
                async with asyncio.TaskGroup() as group:
                    places = range(self._services.engine.info.replicas)
                    self._lines = {group.create_task(self._line()) for _ in places}
            except Exception:  # a disk that is full now may not be later: no film is lost
                logger.exception("the films cannot be gone on with")
                if self._closed:
                    return
                await self._services.clock.sleep(LOOK_S)

    async def _line(self) -> None:
        """One film after the other; when one line fails the others end before it is gone on."""
        while True:
            await self._next()

    async def _recover(self) -> None:
        store = self.desk.store
        for film in await self.desk.ask(lambda: store.recover(self.now())):
            _log_end(film)
        await self._sweep()

    async def _next(self) -> None:
        """Make the first film in line, or wait for one, or for a model that can."""
        if not is_ready(self._services):
            await change(self._services.clock, LOOK_S, self._wake)
            return
        info = self._services.engine.info
        take = functools.partial(self.desk.store.take, info.model, info.weights, self.now())
        film = await self.desk.ask(take)
        if film is not None:
            await self._changed()
            await self._make(film)
        else:
            await change(self._services.clock, None, self._wake)
        await self._sweep()

    async def _make(self, film: Film) -> None:
        """Make one film and write down what became of it."""
        making = asyncio.create_task(self._unless_ended(film))
        self._making[film.id] = making
        try:
            await asyncio.wait({making})
        except asyncio.CancelledError:  # the server ends: its chunk is given up, the film is not
            await stop(making)
            store, now = self.desk.store, self.now()
            await self.desk.ask(functools.partial(store.put_back, film.id, now, blameless=True))
            raise
        finally:
            del self._making[film.id]
            self._under_way.pop(film.id, None)
        if not making.cancelled():
            await self._judge(film, making.exception())

    async def _unless_ended(self, film: Film) -> None:
        """Make a film, unless it was cancelled before anybody could know who makes it."""
        now = await self.desk.ask(functools.partial(self.desk.store.find, film.id))
        if now is not None and not now.has_ended:
            log(logger, logging.INFO, "film begins", film=film.id, chunk=film.chunks)
            kind = Walking if self._services.engine.info.live else Guided
            self._under_way[film.id] = kind(self._services, self.desk, film)
            await self._under_way[film.id].run()

    async def _judge(self, film: Film, error: BaseException | None) -> None:
        """Write down how it ended. What may succeed later is put back, and waited with."""
        store, now, id = self.desk.store, self.now(), film.id
        waits = isinstance(error, (WorkerDiedError, CapacityError))
        if error is None:
            end = functools.partial(store.end, id, "completed", now)
        elif waits and not (isinstance(error, CapacityError) and self._is_alone):
            blameless = isinstance(error, CapacityError)
            end = functools.partial(store.put_back, id, now, blameless=blameless)
        else:
            logger.error("film %s failed", id, exc_info=error)
            ours = isinstance(error, WorldlineError)
            code, text = error.code if ours else INTERNAL, str(error) or type(error).__name__
            end = functools.partial(store.end, id, "failed", now, code=code, message=text)
        found = await self.desk.ask(end)
        if found is not None and found.has_ended:
            await self.desk.ask(functools.partial(store.tidy, id))
            _log_end(found)
        elif found is not None:
            log(logger, logging.WARNING, "film waits", film=id, why=str(error))
            await self._services.clock.sleep(LOOK_S)

    @property
    def _is_alone(self) -> bool:
        """Whether nobody else takes memory: what does not fit now never will."""
        return self._services.seats.taken == 0

    async def _sweep(self) -> None:
        """Forget what is too old or too much."""
        config, now = self._services.config, self.now()
        before = now - config.film_keep_s if config.film_keep_s else 0.0
        most = config.max_films_bytes or 2**63
        expire = functools.partial(self.desk.store.expire, before=before, most_bytes=most)
        await self.desk.ask(expire)
        await self._changed()

    async def _changed(self) -> None:
        """Count anew what the metrics tell."""
        self._counts = await self.desk.ask(self.desk.store.counts)
        self._bytes = await self.desk.ask(self.desk.store.total_bytes)


def _log_end(film: Film) -> None:
    log(logger, logging.INFO, "film ended", film=film.id, status=film.status, code=film.code)
