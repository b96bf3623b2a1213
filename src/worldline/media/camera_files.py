"""The camera path beside a film: `poses.npy`, `intrinsics.npy` and `transforms.json`.

`poses.npy` grows while the film does, and is whole after every `add`: its header is written anew in
place. The others are small and written at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from worldline.core.camera import (
    REFERENCE_HEIGHT,
    REFERENCE_WIDTH,
    Intrinsics,
    interpolate_poses,
)
from worldline.core.trajectory import as_poses, intrinsics_array, transforms

POSES: Final = "poses.npy"
INTRINSICS: Final = "intrinsics.npy"
TRANSFORMS: Final = "transforms.json"
PICTURE: Final = "images/{:05d}.png"  # of a film, once it is taken apart
Row = tuple[float, ...]


class PoseFile:
    """Camera-to-world matrices, float32 `[n, 4, 4]`, one for each picture."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._file = path.open("wb")
        self._start = _write_header(self._file, 0)
        self._file.flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Append poses, given as the rows of 3x4 matrices."""
        if not rows:
            return
        self._file.seek(0, 2)
        self._file.write(as_poses(rows).astype("<f4").tobytes())
        self.count += len(rows)
        self._file.seek(0)
        start = _write_header(self._file, self.count)
        assert start == self._start, "numpy leaves room for a first axis that grows"
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def between(before: Row, after: Row, index: int, count: int) -> Row:
    """The pose of picture `index` of the `count` that lead from one latent frame to the next.

    The last of them is at `after`, as in `core.trajectory.per_picture`.
    """
    path = interpolate_poses(as_poses([before, after]), count + 1)
    return tuple(float(value) for value in path[index + 1, :3].reshape(12))


def write_rest(
    folder: Path, intrinsics: Intrinsics, *, width: int, height: int, name: str = PICTURE
) -> None:
    """Write the other two files for the poses in `folder`; `intrinsics` of a picture this size.

    `name` is the file of each picture.
    """
    poses = np.load(folder / POSES)
    across, down = REFERENCE_WIDTH / width, REFERENCE_HEIGHT / height
    fx, fy, cx, cy = intrinsics
    reference = Intrinsics(fx * across, fy * down, cx * across, cy * down)
    np.save(folder / INTRINSICS, intrinsics_array(reference, len(poses)))
    if len(poses):
        found = transforms(poses, intrinsics, size=(width, height), name=name)
        (folder / TRANSFORMS).write_text(json.dumps(found), encoding="utf-8")


def _write_header(file: BinaryIO, count: int) -> int:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, 4, 4)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
