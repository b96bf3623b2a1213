"""The timeline of one world in thumbnails: about one a second of the walk, made beside it.

A chunk's first picture is copied when it is shown and made small in a thread; nobody waits for it.
When there are too many, every other of the older half goes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import PICTURES
from worldline.core.live.server import Moment
from worldline.media.jpeg import encode_jpeg
from worldline.media.resize import preview_size, shrink
from worldline.runtime.protocol import OpenReply
from worldline.server.history import seconds_at
from worldline.server.waiting import in_thread, stop

EVERY_S: Final = 1.0
WIDTH: Final = 160  # pixels
QUALITY: Final = 70
MOST: Final = 240
MOST_WAITING: Final = 2


class _Wanted(NamedTuple):
    """A picture to be made small, uint8 `H W 3`."""

    chunk: int
    seconds: float
    number: int
    picture: NDArray[np.uint8]


class Moments:
    """Of one open world; `tell` is given each as it is made."""

    def __init__(self, reply: OpenReply, pool: Executor, *, tell: Callable[[Moment], None]) -> None:
        self._reply = reply
        self._pool = pool
        self._tell = tell
        self._made: list[Moment] = []
        self._waiting: deque[_Wanted] = deque(maxlen=MOST_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._cuts = 0
        self._newest_s: float | None = None  # of those asked for, made or not yet
        chunk_s = PICTURES * reply.chunk / reply.fps
        self._gap_s = EVERY_S - chunk_s / 2  # the chunk nearest to a second after the last

    @property
    def all(self) -> Sequence[Moment]:
        """Those of the walk as it is, in order."""
        return self._made

    def begin(self, moments: Sequence[Moment]) -> None:
        """Those of the world that this one is a branch of."""
        self._made = list(moments)
        self._newest_s = self._made[-1].seconds if self._made else None

    def offer(self, chunk: int, number: int, picture: NDArray[np.uint8]) -> None:
        """Chunk `chunk` of the walk begins with `picture`, of this number; uint8 `H W 3`."""
        seconds = seconds_at(chunk, self._reply)
        if self._newest_s is not None and seconds < self._newest_s + self._gap_s:
            return
        self._newest_s = seconds
        self._waiting.append(_Wanted(chunk, seconds, number, picture.copy()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    def cut(self, chunk: int) -> None:
        """The walk stands before `chunk` again."""
        self._cuts += 1
        self._waiting.clear()
        self.begin([moment for moment in self._made if moment.chunk < chunk])

    def branch(self, chunk: int) -> Sequence[Moment]:
        """Those of a branch that begins there."""
        return [moment for moment in self._made if moment.chunk < chunk]

    async def close(self) -> None:
        """Return when no thread works for it."""
        self._waiting.clear()
        await stop(self._task)

    async def _work(self) -> None:
        while self._waiting:
            wanted, cuts = self._waiting.popleft(), self._cuts
            data = await in_thread(self._pool, lambda picture=wanted.picture: thumbnail(picture))
            if cuts != self._cuts:
                continue  # it is no part of the walk any more, or may not be
            moment = Moment(
                chunk=wanted.chunk, seconds=wanted.seconds, number=wanted.number, picture=data
            )
            self._made.append(moment)
            if len(self._made) > MOST:
                half = len(self._made) // 2
                self._made = [*self._made[:half:2], *self._made[half:]]
            self._tell(moment)


def thumbnail(picture: NDArray[np.uint8]) -> bytes:
    """A small JPEG of a picture, uint8 `H W 3`."""
    height, width, _ = picture.shape
    return encode_jpeg(shrink(picture, *preview_size(width, height, WIDTH)), QUALITY)
