"""A stretch of a walk on disk: a film with its camera, or a folder to train on.

Both hold `poses.npy`, `intrinsics.npy` and `transforms.json`, as recordings do, one row for each
picture. A film is `world.mp4`; a dataset has `frames/`, `actions.npy` and `meta.json` instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics
from worldline.core.errors import ConfigError
from worldline.core.motion import Motion
from worldline.media import camera_files
from worldline.media.record import Recorder, open_recorder

FILM: Final = "world.mp4"
FRAMES: Final = "frames"
ACTIONS: Final = "actions.npy"
META: Final = "meta.json"
NAME: Final = FRAMES + "/frame_{:06d}.png"  # as `record` names them


class Shape(NamedTuple):
    """Of the pictures: size in pixels, a second's number, the camera's intrinsics at this size."""

    width: int
    height: int
    fps: int
    intrinsics: Intrinsics


def check_folder(folder: Path) -> None:
    """Raise `ConfigError` unless a new folder can be there, or is."""
    try:
        full = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ConfigError("the export cannot be written", got=error) from None
    if full:
        raise ConfigError("the folder holds something", expected="a new folder", got=folder)


class Export:
    """Takes the pictures of a stretch in order; `finish` writes what goes with them."""

    def __init__(self, folder: Path, shape: Shape, *, dataset: bool) -> None:
        """Raises: ConfigError for a folder that holds something, or a film without PyAV."""
        self._folder, self._shape, self._dataset = folder, shape, dataset
        self._actions: list[Motion] = []
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("the export cannot be written", got=error) from None
        where = folder / (FRAMES if dataset else FILM)
        self._frames: Recorder = open_recorder(
            where, shape.fps, width=shape.width, height=shape.height
        )
        self._poses = camera_files.PoseFile(folder / camera_files.POSES)

    @property
    def pictures(self) -> int:
        """How many so far."""
        return self._poses.count

    def add(
        self, frames: NDArray[np.uint8], poses: NDArray[np.float64], actions: Sequence[Motion]
    ) -> None:
        """Pictures, uint8 `F H W 3`, the camera `[F, 4, 4]` at each, and the motion that led there.

        Raises: ShapeError.
        """
        assert len(frames) == len(poses) == len(actions), "one camera and one motion per picture"
        self._frames.write(frames)
        self._poses.add([tuple(pose[:3].reshape(12).tolist()) for pose in poses])
        self._actions.extend(actions)

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the rest; `meta` is for a dataset's `meta.json`."""
        width, height, fps, intrinsics = self._shape
        name = NAME if self._dataset else camera_files.PICTURE
        camera_files.write_rest(self._folder, intrinsics, width=width, height=height, name=name)
        if not self._dataset:
            return
        actions = [(motion.x, motion.z, motion.yaw, motion.pitch) for motion in self._actions]
        np.save(self._folder / ACTIONS, np.array(actions, dtype=np.float32).reshape(-1, 4))
        facts = {"fps": fps, "width": width, "height": height, "pictures": self.pictures}
        columns = {"actions": Motion.__struct_fields__}
        text = json.dumps({**facts, **columns, **meta}, ensure_ascii=False)
        (self._folder / META).write_text(text, encoding="utf-8")

    def __enter__(self) -> Export:
        self._frames.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._frames.__exit__(*exc)
        self._poses.close()
