"""A colour chart: patches large enough that what lies between them does not matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATCH = 16
EDGE = 4  # pixels of a patch that its neighbours may touch: chroma is half as fine as luma

# The corners and middle of the cube, greys, skin, foliage, sky: red, green, blue.
COLOURS = (
    (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255),
    (255, 0, 255), (255, 255, 0), (128, 128, 128), (16, 16, 16), (235, 235, 235), (64, 64, 64),
    (192, 192, 192), (115, 82, 68), (194, 150, 130), (98, 122, 157), (87, 108, 67), (133, 128, 177),
    (103, 189, 170), (214, 126, 44), (80, 91, 166), (193, 90, 99), (94, 60, 108), (157, 188, 64),
    (224, 163, 46), (56, 61, 150), (70, 148, 73), (175, 54, 60), (231, 199, 31), (187, 86, 149),
    (8, 133, 161), (243, 243, 242), (200, 200, 200), (160, 160, 160), (122, 122, 121), (85, 85, 85),
    (52, 52, 52), (5, 5, 5), (250, 250, 250), (128, 0, 0), (0, 128, 0), (0, 0, 128),
    (128, 128, 0), (0, 128, 128), (128, 0, 128), (255, 128, 0), (0, 255, 128), (128, 0, 255),
    (255, 0, 128), (128, 255, 0), (0, 128, 255), (255, 128, 128), (128, 255, 128), (128, 128, 255),
    (30, 60, 90), (90, 60, 30), (60, 90, 30), (220, 180, 140), (140, 180, 220), (180, 220, 140),
)  # fmt: skip


def chart() -> NDArray[np.uint8]:
    """160x96: ten patches across, six down; `H W 3`."""
    patches = np.array(COLOURS, dtype=np.uint8).reshape(6, 10, 3)
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def off_by(seen: NDArray[np.uint8]) -> int:
    """The largest difference in any channel of a pixel inside a patch."""
    reference = chart()
    inside = slice(EDGE, PATCH - EDGE)
    difference = np.abs(seen.astype(np.int16) - reference).reshape(6, PATCH, 10, PATCH, 3)
    return int(difference[:, inside, :, inside].max())
