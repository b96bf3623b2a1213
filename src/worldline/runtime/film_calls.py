"""Films across the process boundary: three calls, one reply, and each side's part of it.

A film in the worker is a `runtime.films.FilmJob` under a name. `FilmOpen` begins it, or goes on
with the one in its folder; each `FilmAdvance` is one turn of the device and answers with the
pictures that were decoded, in shared memory; `FilmClose` gives its memory back. Calls stand in line
with those of sessions, so a film gets as much of the device as whoever drives it asks for. A worker
that has died knows no films any more: open them again from their folders. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ImageError, SessionError, SessionMissingError
from worldline.core.film import FilmProgress, FilmRequest
from worldline.runtime.slot import SlotRef

RGB = 3


class FilmOpen(msgspec.Struct, frozen=True, kw_only=True, tag="film_open"):
    """Begin a film. `image` is RGB, `image_height x image_width x 3` bytes, row by row.

    `folder` is where it is kept while it is made; None keeps it nowhere.
    """

    film_id: str
    request: FilmRequest
    image: bytes
    image_width: int
    image_height: int
    folder: str | None = None


class FilmAdvance(msgspec.Struct, frozen=True, kw_only=True, tag="film_advance"):
    """One turn; with `save` the state after it is written to the film's folder.

    Callers leave `slot` alone; the handle fills it.
    """

    film_id: str
    save: bool = False
    slot: SlotRef | None = None


class FilmClose(msgspec.Struct, frozen=True, kw_only=True, tag="film_close"):
    """Give up a film's memory; with `forget` its folder too. An unknown film is no error."""

    film_id: str
    forget: bool = False


class FilmReply(msgspec.Struct, frozen=True, kw_only=True, tag="film"):
    """How far a film is. `shape` is that of the pictures of this turn, `(F, H, W, 3)`, or None.

    `resumed` denoise passes were found in the folder; `turn_bytes` is the most that one turn shows.
    """

    film_id: str
    width: int
    height: int
    fps: int
    progress: FilmProgress
    done: bool = False
    resumed: int = 0
    turn_bytes: int = 0
    shape: tuple[int, int, int, int] | None = None


class FilmClosed(msgspec.Struct, frozen=True, kw_only=True, tag="film_closed"):
    """The worker holds nothing of this film any more."""

    film_id: str


FilmCall = FilmOpen | FilmAdvance | FilmClose


class FilmTurn(NamedTuple):
    """What a call gave: the reply (None after `FilmClose`) and the pictures, uint8 `F H W 3`."""

    reply: FilmReply | None
    frames: NDArray[np.uint8] | None = None


# --- in the worker --------------------------------------------------------------------------------


class EngineFilm(Protocol):
    """What the worker needs of a film; `runtime.films.FilmJob` is one."""

    width: int
    height: int

    @property
    def progress(self) -> FilmProgress:
        """How far it is."""
        ...

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    @property
    def resumed(self) -> int:
        """Denoise passes that need not be made again."""
        ...

    @property
    def turn_frames(self) -> int:
        """Pictures that one turn shows at most."""
        ...

    def advance(self) -> NDArray[np.uint8] | None:
        """One turn."""
        ...

    def save(self) -> None:
        """Write down how far it is."""
        ...

    def forget(self) -> None:
        """Remove what was written."""
        ...

    def close(self) -> None:
        """Give back all memory."""
        ...


class FilmWorld(Protocol):
    """What the worker needs of a model that makes films."""

    def film(
        self, request: FilmRequest, image: NDArray[np.uint8], *, folder: Path | None
    ) -> EngineFilm:
        """Begin a film, or go on with it."""
        ...


class Pixels(Protocol):
    """Where pictures go: `shm.SlotWriter`, or nowhere on other ranks than 0."""

    def write(self, ref: SlotRef, frames: NDArray[np.uint8], *, first: int = 0) -> None:
        """Copy frames to their place."""
        ...

    def close(self) -> None:
        """Unmap everything."""
        ...


class _Live(NamedTuple):
    film: EngineFilm
    pixels: Pixels


class Films:
    """The films of one loaded model; every method runs on the device thread."""

    def __init__(
        self, world: FilmWorld, *, fps: int, pixels: Callable[[], Pixels], writes: bool
    ) -> None:
        """`pixels` makes a place for pictures; only the rank that `writes` keeps films on disk."""
        self._world, self._fps, self._pixels, self._writes = world, fps, pixels, writes
        self._live: dict[str, _Live] = {}

    def __len__(self) -> int:
        return len(self._live)

    def answer(self, call: FilmCall) -> FilmReply | FilmClosed:
        """The reply to one call. Raises what the engine raises."""
        if isinstance(call, FilmOpen):
            return self._open(call)
        if isinstance(call, FilmClose):
            return self._close(call)
        return self._advance(call)

    def close_all(self) -> None:
        """Drop every film; what was saved stays."""
        for film_id in list(self._live):
            self._close(FilmClose(film_id=film_id))

    def _open(self, call: FilmOpen) -> FilmReply:
        if call.film_id in self._live:
            raise SessionError("a film with this id is open", got=call.film_id)
        folder = None if call.folder is None else Path(call.folder)
        film = self._world.film(call.request, picture_of(call), folder=folder)
        self._live[call.film_id] = _Live(film, self._pixels())
        return self._reply(call.film_id, film)

    def _advance(self, call: FilmAdvance) -> FilmReply:
        live = self._live.get(call.film_id)
        if live is None:
            raise SessionMissingError("there is no such film", got=call.film_id)
        assert call.slot is not None, "the handle names a slot in every turn"
        frames = live.film.advance()
        if call.save and self._writes:
            live.film.save()
        reply = self._reply(call.film_id, live.film)
        if frames is None or not len(frames):  # a clip's first latent frame is no new one
            return reply
        live.pixels.write(call.slot, frames)
        count, height, width, _ = frames.shape
        return msgspec.structs.replace(reply, shape=(count, height, width, RGB))

    def _close(self, call: FilmClose) -> FilmClosed:
        live = self._live.pop(call.film_id, None)
        if live is not None:
            live.pixels.close()
            if call.forget and self._writes:
                live.film.forget()
            live.film.close()
        return FilmClosed(film_id=call.film_id)

    def _reply(self, film_id: str, film: EngineFilm) -> FilmReply:
        return FilmReply(
            film_id=film_id,
            width=film.width,
            height=film.height,
            fps=self._fps,
            progress=film.progress,
            done=film.done,
            resumed=film.resumed,
            turn_bytes=film.turn_frames * film.width * film.height * RGB,
        )


def picture_of(call: FilmOpen) -> NDArray[np.uint8]:
    """The start picture, uint8 `H W 3`. Raises `ImageError` where the bytes do not fit."""
    height, width = call.image_height, call.image_width
    if min(height, width) < 1 or len(call.image) != height * width * RGB:
        raise ImageError(
            "the picture's bytes do not fit its size",
            expected=f"{height} x {width} x {RGB} bytes",
            got=f"{len(call.image)} bytes",
        )
    return np.frombuffer(call.image, dtype=np.uint8).reshape(height, width, RGB)
