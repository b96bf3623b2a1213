"""A film as it is asked for, and as the queue knows it: values, no files and no time.

queued -> in_progress -> completed
  |  ^        |  |
  |  +--------+  +-> failed      back to queued: the server or its worker ended under it
  +--> cancelled
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from worldline.core.chunk import PICTURES
from worldline.core.config import WorldInfo
from worldline.core.film import film_frames

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
ENDED: Final[tuple[Status, ...]] = ("completed", "failed", "cancelled")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What makes the film, checked; the start picture is a file beside it.

    `actions` are keys per picture, `poses` rows of 3x4 matrices, `rate` of them a second of video;
    neither stands still. `loras` are names of adapters with their scales, None the server's own.
    """

    prompt: str
    seed: int
    width: int
    height: int
    chunks: int
    actions: str | None = None
    poses: tuple[tuple[float, ...], ...] = ()
    rate: float = 16.0
    negative_prompt: str | None = None
    guidance: float | None = None
    steps: int | None = None
    solver: Literal["unipc", "dpm++"] | None = None
    loras: tuple[tuple[str, float], ...] | None = None


class Film(msgspec.Struct, frozen=True, kw_only=True):
    """One job. Times are seconds since 1970; `number` is its place in the order of coming.

    `chunks` and `frames` are on the disk, `bytes` of them in the film's file. `barren` counts
    attempts since the last new chunk. `weights` name those the chunks were made with.
    """

    id: str
    number: int
    client: str
    model: str
    status: Status
    created: float
    wish: Wish
    fps: int
    seconds: str
    started: float | None = None
    ended: float | None = None
    chunks: int = 0
    frames: int = 0
    bytes: int = 0
    barren: int = 0
    weights: str = ""
    code: str | None = None
    message: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be made for it any more."""
        return self.status in ENDED

    @property
    def progress(self) -> int:
        """Per cent of its chunks."""
        return 100 * self.chunks // self.wish.chunks


def frames_of(chunks: int, chunk: int, *, overlap: int = 0) -> int:
    """Pictures of so many chunks of `chunk` latent frames; the first latent frame is one.

    With `overlap` each chunk begins with so many latent frames of the one before.
    """
    return PICTURES * (film_frames(chunk, chunks, overlap=overlap) - 1) + 1


def chunks_for(pictures: float, info: WorldInfo) -> int:
    """The fewest chunks of at least so many pictures."""
    latent = (pictures - 1) / PICTURES + 1
    return max(1, math.ceil((latent - info.overlap) / max(1, info.chunk - info.overlap) - 1e-9))
