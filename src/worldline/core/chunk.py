"""The unit that leaves the engine: the pixel frames of one chunk and how long each stage took."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray


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


class Chunk(NamedTuple):
    """Frames of one chunk: `frames` uint8 `F H W 3`, RGB."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody needs tuple.index
    frames: NDArray[np.uint8]
    timings: StageTimings
