"""The unit that leaves the engine: the pixel frames of one chunk and how long each stage took."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.motion import Pose

PICTURES: Final = 4  # that one latent frame becomes; the very first of a world becomes one


class StageTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Wall time of the stages of one chunk, in milliseconds.

    `encode_ms` is the part of the start picture's encode that fell into this chunk;
    `total_ms` runs from the call of `step` to the frames being on the host.
    """

    conditions_ms: float = 0.0
    encode_ms: float = 0.0
    denoise_ms: float = 0.0
    context_ms: float = 0.0
    decode_ms: float = 0.0
    transfer_ms: float = 0.0
    total_ms: float = 0.0


class Decoded(NamedTuple):
    """The frames of one latent frame, uint8 `f H W 3`: one at the start of a world, else four.

    `first` is the number of the first of them within the chunk, `pose` where the camera is.
    """

    latent_frame: int
    first: int
    frames: NDArray[np.uint8]
    pose: Pose


class Chunk(NamedTuple):
    """Frames of one chunk: `frames` uint8 `F H W 3`, RGB; `poses` one per latent frame."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody needs tuple.index
    frames: NDArray[np.uint8]
    timings: StageTimings
    poses: tuple[Pose, ...] = ()
