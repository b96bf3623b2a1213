"""A recording of one world: the shared H.264 into a fragmented film, the camera path beside it.

Follows the stream like a viewer and costs no encode of its own. A fragment a second is written, by
a thread; a disk that is slower leaves a gap in the film and holds nobody up. Ends when it is told
to, when a limit is reached, and with the world.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import BinaryIO, Final

from worldline.core.camera import Intrinsics
from worldline.core.clock import Clock
from worldline.core.errors import CapacityError, ConfigError
from worldline.core.live.codes import NoticeCode
from worldline.core.live.server import Notice, Recording
from worldline.core.live.shared import Format
from worldline.media.camera_files import POSES, PoseFile, between, write_rest
from worldline.media.fragmented import FragmentedMp4, Sample
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.following import Following, Pace, Unit
from worldline.server.live.recordings import FILM, Recordings, Take
from worldline.server.waiting import in_thread

logger = logging.getLogger("worldline.server.recording")

MOST_WAITING: Final = 512
REFRESH_S: Final = 10.0  # a film is sought in by its key frames
_NEVER_LATE: Final = Pace(chunk_s=float("inf"), ahead=2**31)


class Recorder:
    """The recordings of one world, one at a time. A `Follower` of its broadcast while it is on."""

    format: Format = "h264"
    holder = False
    limit_kbps = 0

    def __init__(self, broadcast: Broadcast, recordings: Recordings, clock: Clock) -> None:
        self.following: Following | None = None
        self._broadcast = broadcast
        self._recordings = recordings
        self._clock = clock
        self._take: Take | None = None
        self._units: deque[Unit] = deque()
        self._wake = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        broadcast.closers.append(self.close)

    @property
    def on(self) -> bool:
        """Whether it records now."""
        return self.following is not None

    def switch(self, on: bool) -> Recording:
        """Begin or end; doing what is done already is no error. Returns what to tell.

        Raises: ConfigError where this world cannot be recorded, CapacityError without room.
        """
        if on and not self.on:
            self._begin()
        elif not on and self.on:
            self._end()
        return self._told()

    def offer(self, unit: Unit) -> None:
        """A picture of the stream."""
        following, now = self.following, self._clock.now()
        if following is None:
            return
        following.offer(unit, now)
        taken = following.take(now)
        if not isinstance(taken, Unit):
            return
        following.wrote(unit.number, 0.0)
        if len(self._units) >= MOST_WAITING:
            following.leave(now)  # the disk is too slow: a gap, then some later key frame
            return
        self._units.append(taken)
        self._wake.set()

    def saw(self, number: int) -> None:
        """Nothing: a film wants every picture of the stream or none."""

    def end(self) -> None:
        """There is no more H.264 in this world."""
        self._stop_early("recording_failed", "the world has no H.264 any more")

    def finish(self) -> None:
        """End, and tell the holder where it is; nothing when it is off."""
        if self.on:
            self._end()
            self._broadcast.tell_holder(self._told())

    async def close(self) -> None:
        """End, and return once the files are whole."""
        if self.on:
            self._end()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _begin(self) -> None:
        opened = self._broadcast.geometry
        if opened is None or "h264" not in self._broadcast.formats:
            raise ConfigError("this world cannot be recorded", expected="a world with H.264")
        if self._writing is not None and not self._writing.done():
            raise CapacityError("the last recording is still being written", expected="a moment")
        take = self._take = self._recordings.begin(self._broadcast.world_id)
        take.fps = opened.fps
        self.following = Following(chained=True, pace=_NEVER_LATE, refresh_s=REFRESH_S)
        self._broadcast.join(self)
        k = Intrinsics(*opened.intrinsics)
        writer = _Writer(take, k, width=opened.width, height=opened.height)
        self._writing = asyncio.create_task(self._write(take, writer))

    def _end(self) -> None:
        self._broadcast.part(self)
        self.following = None
        self._wake.set()

    def _told(self) -> Recording:
        take = self._take
        if take is None:
            return Recording(on=False)
        return Recording(on=self.on, url=take.url, seconds=round(take.seconds, 3))

    async def _write(self, take: Take, writer: _Writer) -> None:
        """Write a second at a time until the recording is switched off or has reached a limit."""
        try:
            await in_thread(self._recordings.writers, writer.open)
            while (batch := await self._batch(take)) is not None:
                if not self._fits(take, batch):
                    self._stop_early("recording_limit", "the recording has reached its limit")
                    break
                await in_thread(self._recordings.writers, lambda units=batch: writer.write(units))
                take.pictures = writer.pictures
        except Exception:
            logger.exception("recording failed", extra={"fields": {"world": take.world}})
            self._stop_early("recording_failed", "the recording could not be written")
        finally:
            self._units.clear()
            try:
                await in_thread(self._recordings.writers, writer.close)
            except Exception:
                logger.exception("recording is not whole", extra={"fields": {"world": take.world}})
            take.pictures = writer.pictures
            self._recordings.finish(take)

    async def _batch(self, take: Take) -> list[Unit] | None:
        """A second of pictures, or what is left; None at the end."""
        while self.on and len(self._units) < take.fps:
            self._wake.clear()
            await self._wake.wait()
        batch = [self._units.popleft() for _ in range(min(take.fps, len(self._units)))]
        if batch and self.following is not None and self.following.behind:
            self.following.wrote(batch[-1].number, 0.0)  # there is room again
        return batch or None

    def _fits(self, take: Take, batch: list[Unit]) -> bool:
        longest = self._broadcast.config.max_recording_s
        if longest and take.seconds >= longest:
            return False
        size = sum(len(unit.payload) + 128 for unit in batch)  # the tables, and the poses
        return self._recordings.has_room(take, size)

    def _stop_early(self, code: NoticeCode, message: str) -> None:
        if self.on:
            self._broadcast.tell_holder(Notice(code=code, message=message))
            self.finish()


class _Writer:
    """The files of one take; every method runs in a thread, one at a time."""

    def __init__(self, take: Take, intrinsics: Intrinsics, *, width: int, height: int) -> None:
        self.pictures = 0
        self._take = take
        self._intrinsics = intrinsics
        self._size = width, height
        self._film: BinaryIO | None = None
        self._mp4: FragmentedMp4 | None = None
        self._poses: PoseFile | None = None
        self._last: Unit | None = None  # it lasts until the next one, which is not known yet

    def open(self) -> None:
        self._film = (self._take.folder / FILM).open("wb")
        self._mp4 = FragmentedMp4(self._film, self._take.fps)
        self._poses = PoseFile(self._take.folder / POSES)

    def write(self, units: list[Unit]) -> None:
        held = [] if self._last is None else [self._last]
        self._last = units[-1]
        self._append([*held, *units[:-1]], until=self._last.number)

    def close(self) -> None:
        """Write what was held back and the other files."""
        try:
            if self._last is not None:
                self._append([self._last], until=self._last.number + 1)
        finally:
            for file in (self._film, self._poses):
                if file is not None:
                    file.close()
        if self.pictures:
            width, height = self._size
            write_rest(self._take.folder, self._intrinsics, width=width, height=height)

    def _append(self, units: list[Unit], *, until: int) -> None:
        assert self._mp4 is not None and self._poses is not None, "open first"
        if not units:
            return
        self._mp4.write([Sample(u.payload, u.key, u.number) for u in units], until)
        self._poses.add([between(u.before.c2w, u.pose.c2w, u.place, u.places) for u in units])
        self.pictures += len(units)
