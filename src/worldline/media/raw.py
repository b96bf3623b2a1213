"""Raw RGB: the pixels as they are, row by row, without padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def view(frames: NDArray[np.uint8]) -> memoryview:
    """The bytes of `frames` (`F H W 3`) without a copy; valid as long as the frames are.

    Raises: ValueError when the frames are not contiguous, because that would hide a copy.
    """
    if not frames.flags.c_contiguous:
        raise ValueError("raw frames must be C-contiguous")
    return frames.data.cast("B")
