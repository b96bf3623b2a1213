"""Shrinking frames for previews."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def preview_size(width: int, height: int, max_width: int | None) -> tuple[int, int]:
    """Width and height (pixels) of a preview at most `max_width` wide; never enlarges."""
    if not max_width or max_width >= width:
        return width, height
    return max_width, max(1, round(height * max_width / width))


def shrink(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """One frame `H W 3` as `height width 3` by bicubic filtering; the frame itself if it fits."""
    if frame.shape[:2] == (height, width):
        return frame
    small = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.uint8)  # height width 3
