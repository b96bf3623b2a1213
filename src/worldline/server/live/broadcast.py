"""What one world shows, to all who see it: one encode per format, and nobody waits for a viewer.

`show` encodes picture by picture and offers each as soon as it is encoded; it returns when the
pixels are read, never because of a reader. It waits for the holder's format, which alone counts as
the cost of encoding, and for H.264, whose pictures need each other; the images of everybody else
are made beside it (`beside`). Key frames are shared (`idr`), the bitrate follows the
holder (`bitrate`), and what a viewer gets that cannot keep up is its own affair (`following`).
Implements `frames.Audience`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Final, NamedTuple, Protocol

from worldline.core.config import ServerConfig
from worldline.core.live.server import Opened, ServerMessage
from worldline.core.live.shared import Format
from worldline.core.motion import Pose
from worldline.media import h264
from worldline.server.live.beside import Beside
from worldline.server.live.bitrate import Holder
from worldline.server.live.following import Following, Pace, Unit
from worldline.server.live.frames import ChunkFrames, Sent
from worldline.server.live.renditions import Picture, Renditions
from worldline.server.live.stream import Need, Stream
from worldline.server.live.viewer import Viewer
from worldline.server.metrics import Metrics
from worldline.server.waiting import AsyncClock

logger = logging.getLogger("worldline.server.broadcast")

AHEAD_S: Final = 2.0  # beyond chunk and lead: what may be under way to who reports its playhead
IMAGES: Final[tuple[Format, ...]] = ("jpeg", "webp", "raw")


def formats() -> tuple[Format, ...]:
    """What this server can send, best first."""
    return ("h264", *IMAGES) if h264.available() else IMAGES


class Follower(Protocol):
    """Whoever takes pictures: a socket's viewer, a WebRTC track, a recording."""

    @property
    def format(self) -> Format:
        """What it takes."""
        ...

    @property
    def following(self) -> Following | None:
        """Its queue; None takes nothing."""
        ...

    @property
    def holder(self) -> bool:
        """Whether the bitrate follows it."""
        ...

    @property
    def limit_kbps(self) -> int:
        """What its network can carry, where that is known; else 0."""
        ...

    def offer(self, unit: Unit) -> None:
        """A picture of its format; returns at once."""
        ...

    def saw(self, number: int) -> None:
        """Picture `number` exists."""
        ...

    def end(self) -> None:
        """There will be no more of its format."""
        ...


class _Made(NamedTuple):
    """What one picture took: seconds in the encoder, bytes; 0 bytes when nobody needed it."""

    encode_s: float
    bytes: int


class Broadcast:
    """The viewers of one world, and its encoders."""

    def __init__(
        self,
        world_id: str,
        config: ServerConfig,
        *,
        clock: AsyncClock,
        encoders: Executor,
        metrics: Metrics,
    ) -> None:
        self.world_id = world_id
        self.config = config
        self.geometry: Opened | None = None
        self.closers: list[Callable[[], Awaitable[None]]] = []  # awaited by `close`
        self.leavers: list[Callable[[Viewer], None]] = []  # hear who is detached
        self.pace = Pace()
        self.stream = Stream(clock, encoders, kbps=config.bitrate_kbps)
        self._clock = clock
        self._metrics = metrics
        self._left = 0  # times that those who follow now have fallen behind, as counted so far
        self._viewers: dict[str, Viewer] = {}
        self._others: list[Follower] = []
        self._renditions = Renditions(clock, encoders)
        self._beside = Beside(self._offer)
        self._offered: dict[Format, int] = {}  # number of the newest picture
        self._formats = formats()
        self._pose: Pose | None = None  # of the last latent frame
        self._order = asyncio.Lock()

    @property
    def viewers(self) -> tuple[Viewer, ...]:
        """Who sees this world, in the order they came."""
        return tuple(self._viewers.values())

    @property
    def holder(self) -> Viewer | None:
        """Who has the controls."""
        return next((viewer for viewer in self._viewers.values() if viewer.holder), None)

    @property
    def formats(self) -> tuple[Format, ...]:
        """What this world can be had in."""
        return self._formats

    def opened(self, opened: Opened) -> None:
        """The world's size and rate are known; to be called before its first picture."""
        self.geometry = opened
        chunk_s = opened.chunk * opened.latent_frames / opened.fps
        ahead_s = AHEAD_S + chunk_s + self.config.max_lead_s
        self.pace = Pace(chunk_s, round(ahead_s * opened.fps))
        self.stream.fps, self.stream.chunk_s = opened.fps, chunk_s
        if opened.width % 2 or opened.height % 2:
            self._without_h264()
        for viewer in self._viewers.values():
            if viewer.following is not None:
                viewer.following.pace = self.pace

    def attach(self, viewer: Viewer, format: Format) -> None:
        """Show the world to one more, or to the same one in another format, from now on."""
        viewer.begin(self._possible(format), self.pace, self._renditions.still)
        self._viewers[viewer.id] = viewer
        if self._renditions.newest is not None:
            viewer.saw(self._renditions.newest.number)

    def detach(self, viewer: Viewer) -> None:
        """Show it nothing more; a viewer that is not attached is no error."""
        if self._viewers.get(viewer.id) is viewer:
            del self._viewers[viewer.id]
            viewer.end()
            for left in self.leavers:
                left(viewer)

    def join(self, follower: Follower) -> None:
        """H.264 for one that is no socket's viewer, until it parts or is told to end."""
        self._others.append(follower)

    def part(self, follower: Follower) -> None:
        """No more for it; one that has not joined is no error."""
        self._others = [other for other in self._others if other is not follower]

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Encode once and offer to every viewer; returns then, and waits for no viewer."""
        try:
            asked = self._clock.now()
            async with self._order:
                started = self._clock.now()
                split = _split(pictures, self._pose or pictures.view)
                made = [await self._show(picture) for picture in split]
                self._pose = pictures.view
            encode_s, size = sum(one.encode_s for one in made), sum(one.bytes for one in made)
            return Sent(started - asked, encode_s, size)
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

    def key_frame(self, follower: Follower) -> None:
        """A decoder has lost its thread: stills until the next key frame, which it asks for."""
        if follower.following is not None:
            follower.following.lost(self._clock.now())

    def quality(self, share: float) -> None:
        """Spend this share (0 to 1) of the usual bitrate and quality from the next picture on."""
        self._renditions.share = self.stream.share = min(max(share, 0.0), 1.0)

    def settings(self, *, quality: int | None = None, bitrate_kbps: int | None = None) -> None:
        """What the holder asks for: image quality (0 is the format's usual), H.264's bitrate."""
        if quality is not None:
            self._renditions.quality = quality
        if bitrate_kbps is not None:
            most = self.config.max_bitrate_kbps
            self.stream.asked_kbps = min(bitrate_kbps, most) if most else bitrate_kbps

    async def settle(self) -> None:
        """Return once every picture so far was offered to everybody, those made beside too."""
        await self._beside.settle()

    async def close(self) -> None:
        """Detach everybody and end the encoder, once the picture in hand is done."""
        async with self._order:
            for viewer in self.viewers:
                self.detach(viewer)
            self._end_others()
            self.stream.close()
        await self._beside.close()
        for close in self.closers:
            await close()

    def _followers(self) -> Iterable[Follower]:
        yield from self._viewers.values()
        yield from self._others

    async def _show(self, picture: Picture) -> _Made:
        """Encode one picture for all; seconds for the holder, bytes of the smallest format."""
        kept = self._renditions.keep(picture)
        who = [one for one in self._followers() if one.following is not None]
        kinds: set[Format] = {one.format for one in who}
        held: set[Format] = {one.format for one in who if one.holder} or kinds
        later = kinds - held - {"h264"}
        if later:
            self._beside.put(kept, formats_in(later))
        now = formats_in(kinds - later)
        made = await asyncio.gather(*(self._offer(picture, kind) for kind in now))
        for one in self._followers():
            if one.format not in later:  # who is offered it later sees it then
                one.saw(picture.number)
        self._count_behind()
        costs = [one.encode_s for kind, one in zip(now, made, strict=True) if kind in held]
        sizes = [one.bytes for one in made if one.bytes]
        return _Made(max(costs, default=0.0), min(sizes, default=0))

    async def _offer(self, picture: Picture, kind: Format) -> _Made:
        """Encode one picture in one format and offer it, unless a newer one was."""
        began = self._clock.now()
        unit = await self._encode(picture, kind)
        encode_s = self._clock.now() - began
        if unit is None or picture.number < self._offered.get(kind, 0):
            return _Made(encode_s, 0)
        self._offered[kind] = picture.number
        for one in self._followers():
            if one.format == kind:
                one.offer(unit)
        self._metrics.count_picture(kind, len(unit.payload), key=unit.key)
        return _Made(encode_s, len(unit.payload))

    async def _encode(self, picture: Picture, kind: Format) -> Unit | None:
        if kind == "h264":
            return await self._stream(picture)
        return await self._image(picture, kind)

    def _count_behind(self) -> None:
        left = sum(one.following.left for one in self._followers() if one.following is not None)
        self._metrics.count_behind(max(0, left - self._left))
        self._left = left

    async def _image(self, picture: Picture, kind: Format) -> Unit | None:
        """A format that fails costs those who chose it their picture, and nobody else anything.

        Nor may it end `show` while another format still reads the pixels.
        """
        try:
            return await self._renditions.image(picture, kind)
        except Exception:
            logger.exception("a picture could not be encoded")
            return None

    async def _stream(self, picture: Picture) -> Unit | None:
        now = self._clock.now()
        ways = [(o.following, o.holder) for o in self._followers() if o.format == "h264"]
        ways = [(way, holds) for way, holds in ways if way is not None]
        need = Need(
            followed=any(not way.behind for way, _ in ways),
            urgent=any(way.urgent for way, _ in ways),
            patient=any(way.patient(now) for way, _ in ways),
        )
        limits = [one.limit_kbps for one in self._followers() if one.holder]
        self.stream.limit_kbps = max(limits, default=0)
        holder = next((Holder(w.age(now), w.left) for w, holds in ways if holds), Holder())
        try:
            return await self.stream.make(picture, need, holder)
        except Exception:
            logger.exception("H.264 failed; its viewers get JPEG")
            self._without_h264()
            return None

    def _possible(self, format: Format) -> Format:
        return format if format in self._formats else "jpeg"

    def _without_h264(self) -> None:
        """From now on this world is images only."""
        self._formats = IMAGES
        self._end_others()
        for viewer in self._viewers.values():
            if viewer.following is not None and viewer.format == "h264":
                self.attach(viewer, "jpeg")

    def _end_others(self) -> None:
        """All of them live on H.264."""
        others, self._others = self._others, []
        for other in others:
            other.end()


def formats_in(kinds: set[Format]) -> list[Format]:
    """Those formats, H.264 first."""
    return [kind for kind in ("h264", *IMAGES) if kind in kinds]


def _split(pictures: ChunkFrames, before: Pose) -> Iterable[Picture]:
    for index, pixels in enumerate(pictures.frames):
        yield Picture(
            number=pictures.number + index,
            chunk=pictures.chunk,
            latent_frame=pictures.latent_frame,
            input=pictures.input,
            view=pictures.view,
            first=pictures.first and index == 0,
            pixels=pixels,
            before=before,
            place=index,
            places=len(pictures.frames),
        )
