"""What every film under way has in common: its seat, its files, and a clean end.

A chunk is encoded and written while the next one is made, and counts once it is on the disk. How
pictures come about is a matter of the model: `walking` and `guided`.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import WorldlineError
from worldline.media.image import decode_image
from worldline.server.films.chair import Chair
from worldline.server.films.film import Film
from worldline.server.films.reel import Reel
from worldline.server.films.store import START, FilmStore
from worldline.server.services import Services
from worldline.server.waiting import in_thread, stop

R = TypeVar("R")
Pixels = NDArray[np.uint8]


class Desk(NamedTuple):
    """Where films are kept: one thread owns the store, another one encodes and writes."""

    store: FilmStore
    disk: Executor
    codec: Executor

    async def ask(self, call: Callable[[], R]) -> R:
        """`call` in the store's thread, to its end."""
        return await in_thread(self.disk, call)


class Making(ABC):
    """The film that is being made; `run` returns when all its chunks are on the disk."""

    def __init__(self, services: Services, desk: Desk, film: Film) -> None:
        self.film = film
        self.percent = film.progress
        self.engine = services.engine
        self.device = services.device
        self.clock = services.clock
        self.id = f"film-{film.id}"
        self.chair = Chair(self.id, services.seats, services.clock)
        self.folder: Path = desk.store.folder / film.id
        self._desk = desk
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Make what is missing. Raises: the engine's errors, OSError of the disk.

        However it ends, the engine holds nothing of it, and no thread writes any more.
        """
        try:
            await self.chair.take()
            await self.make(await self._reel())
            await self.written()
        except WorldlineError:
            await self.written()  # what was made before the error counts
            raise
        finally:
            await stop(self._writing)
            await self.leave()
            self.device.forget(self.id)
            self.chair.close()

    @abstractmethod
    async def make(self, reel: Reel) -> None:
        """Make all chunks that `reel` has not, and give each to `write`."""

    @abstractmethod
    async def leave(self) -> None:
        """Give up what the engine holds; nothing there is no error."""

    async def work(self, call: Callable[[], R]) -> R:
        """`call` in the thread that encodes, to its end."""
        return await in_thread(self._desk.codec, call)

    async def picture(self) -> Pixels:
        """The start picture, RGB uint8 `H W 3`. Raises: ImageError, OSError."""
        path = self.folder / START
        return await self.work(lambda: decode_image(path.read_bytes()))

    async def write(self, reel: Reel, frames: Pixels, kept: bytes = b"") -> None:
        """Start to write a chunk once the one before is written; the pixels are not copied."""
        await self.written()
        self._writing = asyncio.create_task(self._keep(reel, frames, kept))

    async def _keep(self, reel: Reel, frames: Pixels, kept: bytes) -> None:
        place = await self.work(functools.partial(reel.append, frames, kept))
        made = functools.partial(self._desk.store.made, self.film.id, place, reel.frames)
        self.percent = (await self._desk.ask(made)).progress

    async def written(self) -> None:
        """Return once all chunks are on the disk that were given to `write`."""
        if self._writing is not None:
            await self._writing

    async def _reel(self) -> Reel:
        film = self.film
        places = await self._desk.ask(functools.partial(self._desk.store.chunks, film.id))
        reel = Reel(self.folder, film.fps, places=places, frames=film.frames)
        await self.work(reel.go_on)
        return reel


def go_on() -> None:
    """What a turn of the device does that others have waited for, and that is not given up."""
