"""What one world shows, to all who see it: one encode per format, and nobody waits for a viewer.

`show` encodes picture by picture and offers each as soon as it is encoded; it returns when the
pixels are read, never because of a reader. Key frames are shared (`idr`), and what a viewer gets
that cannot keep up is its own affair (`following`). Implements `frames.Audience`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Final

from worldline.core.config import ServerConfig
from worldline.core.live.common import Format
from worldline.core.live.server import Opened, ServerMessage
from worldline.server.live.following import Pace, Unit
from worldline.server.live.frames import ChunkFrames, Sent
from worldline.server.live.renditions import Picture, Renditions
from worldline.server.live.viewer import Viewer
from worldline.server.waiting import AsyncClock

AHEAD_S: Final = 4.0  # sent and not shown, before a viewer that reports its playhead has to wait
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "webp", "raw")


def formats() -> tuple[Format, ...]:
    """What this server can send, best first."""
    return FORMATS


class Broadcast:
    """The viewers of one world, and its encoders."""

    def __init__(
        self, world_id: str, config: ServerConfig, clock: AsyncClock, encoders: Executor
    ) -> None:
        self.world_id = world_id
        self._config = config
        self._clock = clock
        self._viewers: dict[str, Viewer] = {}
        self._renditions = Renditions(clock, encoders)
        self._pace = Pace()
        self._order = asyncio.Lock()

    @property
    def viewers(self) -> tuple[Viewer, ...]:
        """Who sees this world, in the order they came."""
        return tuple(self._viewers.values())

    @property
    def holder(self) -> Viewer | None:
        """Who has the controls."""
        return next((viewer for viewer in self._viewers.values() if viewer.holder), None)

    def opened(self, opened: Opened) -> None:
        """The world's size and rate are known; to be called before its first picture."""
        chunk_s = opened.chunk * opened.latent_frames / opened.fps
        self._pace = Pace(chunk_s, round((AHEAD_S + chunk_s) * opened.fps))
        for viewer in self._viewers.values():
            if viewer.following is not None:
                viewer.following.pace = self._pace

    def attach(self, viewer: Viewer, format: Format) -> None:
        """Show the world to one more, or to the same one in another format, from now on."""
        if format not in formats():
            format = "jpeg"
        viewer.begin(format, self._pace, self._renditions.still)
        self._viewers[viewer.id] = viewer
        if self._renditions.newest is not None:
            viewer.saw(self._renditions.newest.number)

    def detach(self, viewer: Viewer) -> None:
        """Show it nothing more; a viewer that is not attached is no error."""
        if self._viewers.get(viewer.id) is viewer:
            del self._viewers[viewer.id]
            viewer.end()

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Encode once and offer to every viewer; returns then, and waits for no viewer."""
        try:
            asked = self._clock.now()
            async with self._order:
                started = self._clock.now()
                sizes = [await self._show(picture) for picture in _split(pictures)]
            return Sent(started - asked, self._clock.now() - started, sum(sizes))
        finally:
            pictures.release()

    def tell(self, message: ServerMessage) -> None:
        """A message for every viewer."""
        for viewer in self._viewers.values():
            viewer.send(message)

    def tell_holder(self, message: ServerMessage) -> None:
        """A message for the one who has the controls, if anybody has."""
        if (holder := self.holder) is not None:
            holder.send(message)

    def key_frame(self, viewer: Viewer) -> None:
        """A viewer's decoder has lost its thread."""
        if viewer.following is not None:
            viewer.following.lost(urgent=True)

    def quality(self, share: float) -> None:
        """Spend this share (0 to 1) of the usual bitrate and quality from the next picture on."""
        self._renditions.share = min(max(share, 0.0), 1.0)

    def settings(self, *, quality: int | None = None, bitrate_kbps: int | None = None) -> None:
        """What the holder asks for: image quality (0 is the format's usual), H.264's bitrate."""
        if quality is not None:
            self._renditions.quality = quality

    async def close(self) -> None:
        """Detach everybody and end the encoders, once the picture in hand is done."""
        async with self._order:
            for viewer in self.viewers:
                self.detach(viewer)

    async def _show(self, picture: Picture) -> int:
        """Encode one picture in every format that is followed; bytes of the best one."""
        self._renditions.keep(picture)
        kinds = {v.format for v in self._viewers.values() if v.following is not None}
        made = await asyncio.gather(
            *(self._offer(picture, kind) for kind in FORMATS if kind in kinds)
        )
        for viewer in self._viewers.values():
            viewer.saw(picture.number)
        return min(made, default=0)

    async def _offer(self, picture: Picture, kind: Format) -> int:
        unit = await self._renditions.image(picture, kind)
        self._to_all(unit)
        return len(unit.payload)

    def _to_all(self, unit: Unit) -> None:
        for viewer in self._viewers.values():
            if viewer.format == unit.format:
                viewer.offer(unit)


def _split(pictures: ChunkFrames) -> Iterable[Picture]:
    for index, pixels in enumerate(pictures.frames):
        yield Picture(
            number=pictures.number + index,
            chunk=pictures.chunk,
            latent_frame=pictures.latent_frame,
            input=pictures.input,
            view=pictures.view,
            first=pictures.first and index == 0,
            pixels=pixels,
        )
