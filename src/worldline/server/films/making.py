"""One film through the engine, chunk by chunk, behind everybody who watches live.

The session is like a visitor's, and what it costs others is kept small: it has a seat only while
nobody wants that, a turn of the device is asked for with as much time as there is, and a chunk is
given up when somebody else wants the device, though not for ever. A chunk is encoded and written
while the next one is made, and counts once it is on the disk with what the world needs to go on
from there. So a film that was interrupted goes on behind its last chunk; where the engine cannot go
on from it, chunks are made again and not written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import PICTURES
from worldline.core.errors import AbortedError, SnapshotError, WorldlineError
from worldline.core.motion import MOTIONLESS, Motion, from_actions
from worldline.core.snapshot import decode_chunk, decode_snapshot
from worldline.core.trajectory import motions_along
from worldline.core.turns import HORIZON_S
from worldline.media.image import decode_image
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest
from worldline.server.films.chair import Chair
from worldline.server.films.film import Film, Wish
from worldline.server.films.reel import Reel
from worldline.server.films.store import START as PICTURE
from worldline.server.films.store import FilmStore
from worldline.server.services import Services
from worldline.server.waiting import in_thread, stop

R = TypeVar("R")
MOST_GIVEN_UP: Final = 4  # times that one chunk is given up for somebody else
BEGINNING: Final = "beginning.light"  # the light snapshot before chunk 0
MOST_EXACT_BYTES: Final = 256 * 2**20  # of latents that a film is gone on from


class Desk(NamedTuple):
    """Where films are kept: one thread owns the store, another one encodes and writes."""

    store: FilmStore
    disk: Executor
    codec: Executor

    async def ask(self, call: Callable[[], R]) -> R:
        """`call` in the store's thread, to its end."""
        return await in_thread(self.disk, call)


class Making:
    """The film that is being made; `run` returns when all its chunks are on the disk."""

    def __init__(self, services: Services, desk: Desk, film: Film) -> None:
        self._services = services
        self._engine = services.engine
        self._desk = desk
        self._film = film
        self._id = f"film-{film.id}"
        self._chair = Chair(self._id, services.seats, services.clock)
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Make what is missing. Raises: the engine's errors, OSError of the disk.

        However it ends, the engine holds nothing of it, and no thread writes any more.
        """
        try:
            await self._chair.take()
            reel = await self._reel()
            opened = await self._open(reel)
            motions = motions_of(self._film.wish, opened)
            for index in range(opened.next_chunk, self._film.wish.chunks):
                await self._chair.make_room(self._park, self._unpark)
                span = slice(index * opened.chunk, (index + 1) * opened.chunk)
                result = await self._step(index, motions=motions[span])
                await self._write(reel, result, index)
            await self._written()
        except WorldlineError:
            await self._written()  # what was made before the error counts
            raise
        finally:
            await stop(self._writing)
            await self._engine.close(self._id)
            self._services.device.forget(self._id)
            self._chair.close()

    async def _reel(self) -> Reel:
        film = self._film
        places = await self._desk.ask(functools.partial(self._desk.store.chunks, film.id))
        reel = Reel(self._folder, film.fps, places=places, frames=film.frames)
        await in_thread(self._desk.codec, reel.go_on)
        return reel

    async def _open(self, reel: Reel) -> OpenReply:
        """Behind the last chunk, if the engine can go on from there; else at the beginning."""
        film, folder, codec = self._film, self._folder, self._desk.codec
        request = await in_thread(codec, functools.partial(to_open, film, folder, id=self._id))
        if film.chunks:
            with contextlib.suppress(SnapshotError, OSError):
                find = functools.partial(light_of, folder, reel, film.chunks)
                light = await in_thread(codec, find)
                return await self._engine.open(msgspec.structs.replace(request, light=light))
        opened = await self._engine.open(request)
        if not film.chunks and opened.light:
            keep = functools.partial((folder / BEGINNING).write_bytes, opened.light)
            await in_thread(codec, keep)
        return opened

    async def _step(self, index: int, *, motions: tuple[Motion, ...]) -> StepResult:
        """The next chunk; given up and made anew as long as others want the device more."""
        device, clock = self._services.device, self._services.clock
        request = StepRequest(
            session_id=self._id,
            chunk_index=index,
            motions=motions,
            keep=True,
        )
        for attempt in range(MOST_GIVEN_UP + 1):
            gives_up = attempt < MOST_GIVEN_UP
            yields = functools.partial(self._engine.abort, self._id) if gives_up else _go_on
            with contextlib.suppress(AbortedError):
                latest = clock.now() + HORIZON_S
                async with device.turn(self._id, deadline=latest, yields=yields):
                    return await self._engine.step(request)
        raise AssertionError("the last attempt is not given up")

    async def _write(self, reel: Reel, result: StepResult, index: int) -> None:
        """Start to write a chunk, once the one before is written."""
        try:
            await self._written()
        except BaseException:
            result.release()
            raise
        if index < self._film.chunks:  # made again to come to where the film was left
            result.release()
            return
        frames, kept = np.array(result.frames), result.kept
        result.release()
        self._writing = asyncio.create_task(self._keep(reel, frames, kept))

    async def _written(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _keep(self, reel: Reel, frames: NDArray[np.uint8], kept: bytes) -> None:
        append = functools.partial(reel.append, frames, kept)
        place = await in_thread(self._desk.codec, append)
        made = functools.partial(self._desk.store.made, self._film.id, place, reel.frames)
        await self._desk.ask(made)

    async def _park(self) -> None:
        await self._engine.park(self._id)

    async def _unpark(self) -> None:
        await self._engine.unpark(self._id)

    @property
    def _folder(self) -> Path:
        return self._desk.store.folder / self._film.id


def _go_on() -> None:
    """Others have waited long enough for this chunk not to be given up again."""


def to_open(film: Film, folder: Path, *, id: str) -> OpenRequest:
    """The session of a film from its start picture. Raises: ImageError, OSError."""
    wish = film.wish
    picture = decode_image((folder / PICTURE).read_bytes())
    return OpenRequest(
        session_id=id,
        image=picture.tobytes(),
        image_width=picture.shape[1],
        image_height=picture.shape[0],
        prompt=wish.prompt,
        seed=wish.seed,
        width=wish.width,
        height=wish.height,
        steps=wish.steps,
    )


def light_of(folder: Path, reel: Reel, chunks: int) -> bytes:
    """The world behind the first `chunks` chunks of a film, as light snapshot.

    Of all its chunks, so that what is rebuilt has the bits it had, unless these are too many.
    Raises: SnapshotError where it is not known, OSError.
    """
    snapshot = decode_snapshot((folder / BEGINNING).read_bytes())
    kept = reel.kept(chunks)
    if len(kept) != chunks:
        raise SnapshotError("chunks of this film left nothing behind", got=len(kept))
    exact = sum(len(one) for one in kept) <= MOST_EXACT_BYTES
    snapshot = msgspec.structs.replace(snapshot, everything=exact)
    for one in kept:
        snapshot = snapshot.with_chunk(decode_chunk(one))
    return snapshot.encode()


def motions_of(wish: Wish, opened: OpenReply) -> tuple[Motion, ...]:
    """What moves the camera at every latent frame of the film. Raises: ControlError."""
    count = wish.chunks * opened.chunk
    if wish.poses:
        latent_s = PICTURES / opened.fps
        found = motions_along(wish.poses, rate=wish.rate, latent_s=latent_s, rig=opened.rig)
    else:
        found = tuple(from_actions(keys) for keys in wish.keys)
    return (*found[:count], *([MOTIONLESS] * (count - len(found))))
