"""The files of one film: `film.mp4` that grows by a chunk at a time, and what each chunk left.

A chunk counts once the store says so: what lies behind is cut off when a film goes on. Every chunk
begins with a key frame, so any picture is found by reading the head and one chunk. Every method
waits for the disk, and `append` and `picture` for a codec.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ShapeError
from worldline.core.walk import frames_digest
from worldline.media.fragmented import FragmentedMp4, Sample, sets_of
from worldline.media.scene import decode_picture, encode_scene
from worldline.server.films.store import ChunkPlace

FILM: Final = "film.mp4"
KEPT: Final = "moments.bin"
_HEAD: Final = 64 * 1024  # more than any head takes


class Reel:
    """The film in `folder`: the chunks at `places`, `frames` pictures together."""

    def __init__(
        self, folder: Path, fps: int, *, places: Sequence[ChunkPlace] = (), frames: int = 0
    ) -> None:
        self.path = folder / FILM
        self.frames = frames
        self._kept = folder / KEPT
        self._fps = fps
        self._places = list(places)

    def go_on(self) -> None:
        """Before the first `append`: cut off what was being written when the film was left."""
        for path, size in ((self.path, self._size), (self._kept, self._kept_size)):
            with path.open("ab") as file:
                if file.tell() < size:
                    raise ShapeError("the film's file is shorter than it was", expected=size)
                file.truncate(size)
                os.fsync(file.fileno())

    def append(self, frames: NDArray[np.uint8], kept: bytes | None) -> ChunkPlace:
        """Encode and write one more chunk; on the disk when this returns.

        `kept` is what a world needs to go on from here.
        """
        out = io.BytesIO()
        units = encode_scene(frames, self._fps)
        film = FragmentedMp4(out, self._fps, fragments=len(self._places), sets=self._sets())
        samples = [Sample(unit, i == 0, self.frames + i) for i, unit in enumerate(units)]
        film.write(samples, self.frames + len(frames))
        data = out.getvalue()
        place = ChunkPlace(
            number=len(self._places),
            first=self.frames,
            start=self._size,
            size=len(data),
            kept_start=self._kept_size,
            kept_size=len(kept or b""),
            digest=frames_digest(frames),
        )
        _append(self.path, data)
        if kept:
            _append(self._kept, kept)
        self._places.append(place)
        self.frames += len(frames)
        return place

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Picture `number`, uint8 RGB `H W 3`. Raises: ShapeError when there is none."""
        place = self._places[self.chunk_of(number)]
        with self.path.open("rb") as file:
            head = _head_of(file.read(_HEAD))
            file.seek(place.start)
            data = file.read(place.size)
        return decode_picture(data if place.start == 0 else head + data, number - place.first)

    def chunk_of(self, number: int) -> int:
        """The chunk that picture `number` is in. Raises: ShapeError when there is none."""
        if not 0 <= number < self.frames:
            expected = f"0 to {self.frames - 1}" if self.frames else "a film with pictures"
            raise ShapeError("no such picture in the film", expected=expected, got=number)
        return next(p.number for p in reversed(self._places) if p.first <= number)

    def digests(self, until: int) -> list[bytes]:
        """Of the first `until` chunks."""
        return [place.digest for place in self._places[:until]]

    def kept(self, until: int) -> list[bytes]:
        """What the first `until` chunks left, in order; nothing where some of them left nothing."""
        places = self._places[:until]
        if len(places) < until or not all(place.kept_size for place in places):
            return []
        with self._kept.open("rb") as file:
            return [file.read(place.kept_size) for place in places]

    @property
    def _size(self) -> int:
        return self._places[-1].start + self._places[-1].size if self._places else 0

    @property
    def _kept_size(self) -> int:
        return self._places[-1].kept_start + self._places[-1].kept_size if self._places else 0

    def _sets(self) -> list[bytes]:
        if not self._places:
            return []
        with self.path.open("rb") as file:
            return sets_of(file.read(_HEAD))


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _head_of(start: bytes) -> bytes:
    """`ftyp` and `moov` of a film, of which `start` holds these and more."""
    at = start.find(b"moof")
    return start[: max(at - 4, 0)]
