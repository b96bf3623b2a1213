"""What a world shows, and to whom: the seam between `LiveWorld` and its viewers.

A world knows an `Audience` and nothing of sockets, codecs or viewers. It shows one latent frame at
a time, in order, as soon as it is decoded; `tell` is for everybody, `tell_holder` for the one who
has the controls. Messages that belong to a chunk are told after its frames were shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from worldline.core.live.server import ServerMessage
from worldline.core.motion import Pose as View


class ChunkFrames(NamedTuple):
    """The pictures of one latent frame: `frames` uint8 `F H W 3`, RGB, in shared memory.

    `number` is the running number of the first of them, `latent_frame` counts within its chunk.
    `input` is the newest input they show. `first` and `last` mark the ends of a chunk. Whoever is
    shown this calls `release` once the pixels have been read, exactly once, also when that failed.
    """

    chunk: int
    latent_frame: int
    number: int
    frames: NDArray[np.uint8]
    input: int
    view: View
    first: bool
    last: bool
    release: Callable[[], None]


class Sent(NamedTuple):
    """What became of one `ChunkFrames`: seconds waited for and spent in the encoder, bytes of one
    rendition of it."""

    wait_s: float = 0.0
    encode_s: float = 0.0
    bytes: int = 0


class Audience(Protocol):
    """Those who see a world. `Broadcast` is the real one."""

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Encode once and offer to every viewer; returns then, and waits for no viewer."""
        ...

    def tell(self, message: ServerMessage) -> None:
        """A message for every viewer."""
        ...

    def tell_holder(self, message: ServerMessage) -> None:
        """A message for the one who has the controls, if anybody has."""
        ...

    def quality(self, share: float) -> None:
        """Spend this share (0 to 1) of the usual bitrate and quality from the next picture on."""
        ...
