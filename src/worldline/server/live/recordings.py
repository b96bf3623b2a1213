"""Where recordings lie on disk, for how long, and how much room they may take.

One folder per take, below one folder that this process makes and removes. A take is `recording`,
then `done`; only done ones make room for others, the oldest first. Not thread-safe: the event loop
owns this, threads only write into the files of the take they were given.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from worldline.core.clock import Clock
from worldline.core.config import ServerConfig
from worldline.core.errors import CapacityError, ConfigError
from worldline.media import camera_files, h264

FILM: Final = "world.mp4"
FILES: Final = (FILM, camera_files.POSES, camera_files.INTRINSICS, camera_files.TRANSFORMS)
MOST_WRITERS: Final = 2
MIN_FREE_BYTES: Final = 256 * 2**20


class Take:
    """One recording of one world. `done` is set when its files are whole."""

    def __init__(self, world: str, number: int, folder: Path) -> None:
        self.world = world
        self.number = number
        self.folder = folder
        self.bytes = 0
        self.pictures = 0
        self.fps = 1
        self.done = asyncio.Event()
        self.ended = 0.0

    @property
    def url(self) -> str:
        """Where it can be fetched, relative to the server."""
        return f"/v1/worlds/{self.world}/recording?take={self.number}"

    @property
    def seconds(self) -> float:
        """Its length so far."""
        return self.pictures / self.fps

    def files(self) -> list[Path]:
        """What of it there is."""
        return [path for name in FILES if (path := self.folder / name).is_file()]


class Recordings:
    """All takes of one server process."""

    def __init__(self, config: ServerConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._root: Path | None = None
        self._takes: list[Take] = []
        self._count = 0
        # Of its own: a slow disk delays other recordings, and nobody's pictures.
        self.writers = ThreadPoolExecutor(MOST_WRITERS, thread_name_prefix="recording")

    def __len__(self) -> int:
        return len(self._takes)

    @property
    def bytes(self) -> int:
        """Bytes of all takes."""
        return sum(take.bytes for take in self._takes)

    def begin(self, world: str) -> Take:
        """A folder for a new take.

        Raises: ConfigError where nothing can be recorded, CapacityError without room for it.
        """
        if not self._config.max_recordings_bytes:
            wanted = "the setting max_recordings_bytes above 0"
            raise ConfigError("this server does not record", expected=wanted)
        if not h264.available():
            raise ConfigError("recording needs PyAV", expected='pip install "worldline[video]"')
        self._forget_old()
        self._make_room(0)
        root = self._folder()
        if shutil.disk_usage(root).free < MIN_FREE_BYTES:
            raise CapacityError("the disk is full", expected=f"{MIN_FREE_BYTES} bytes free")
        self._count += 1
        take = Take(world, self._count, Path(tempfile.mkdtemp(prefix="take-", dir=root)))
        self._takes.append(take)
        return take

    def has_room(self, take: Take, size: int) -> bool:
        """Whether `size` more bytes of this take may be written; they count from now on."""
        if take.bytes + size > self._config.max_recording_bytes:
            return False
        try:
            self._make_room(size)
        except CapacityError:
            return False
        take.bytes += size
        return True

    def find(self, world: str, number: int | None = None) -> Take | None:
        """A take of a world by number, or its newest."""
        self._forget_old()
        takes = [take for take in self._takes if take.world == world]
        return next((t for t in reversed(takes) if number is None or t.number == number), None)

    def finish(self, take: Take) -> None:
        """Its files are whole and may be fetched; one without pictures is forgotten."""
        take.ended = self._clock.now()
        take.done.set()
        if not take.pictures:
            self._forget(take)

    def close(self) -> None:
        """Remove everything from the disk, once what is being written is."""
        self.writers.shutdown()
        self._takes.clear()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _folder(self) -> Path:
        if self._root is None:
            where = self._config.recordings_dir
            if where is not None:
                Path(where).mkdir(parents=True, exist_ok=True)
            self._root = Path(tempfile.mkdtemp(prefix="worldline-recordings-", dir=where))
        return self._root

    def _make_room(self, size: int) -> None:
        """Forget done takes, the oldest first, until `size` more bytes fit. Raises CapacityError"""
        limit = self._config.max_recordings_bytes
        for take in [take for take in self._takes if take.done.is_set()]:
            if self.bytes + size < limit:
                return
            self._forget(take)
        if self.bytes + size >= limit:
            raise CapacityError(
                "recordings take too much room", expected=f"at most {limit} bytes", got=self.bytes
            )

    def _forget_old(self) -> None:
        kept_s = self._config.recording_keep_s
        for take in list(self._takes):
            if kept_s and take.done.is_set() and self._clock.now() - take.ended > kept_s:
                self._forget(take)

    def _forget(self, take: Take) -> None:
        self._takes.remove(take)
        shutil.rmtree(take.folder, ignore_errors=True)
