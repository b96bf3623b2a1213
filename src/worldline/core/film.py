"""What a film is made from, and the camera path it follows: values that can cross a process.

A film is a picture, a prompt and a path, made offline. Its path is one framewise relative pose per
latent frame, steps divided by the longest of the whole film, as the published models were trained
and run; the live rig's speeds play no part. Knows nothing of networks.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics, framewise_relative, interpolate_poses
from worldline.core.errors import ControlError

Array32 = NDArray[np.float32]
SolverName = Literal["unipc", "dpm++"]
BranchesName = Literal["auto", "batched", "sequence"]

IDLE_CHUNKS = 8  # how long a film is when neither a path nor a length is given
MAX_LATENT_FRAMES = 65_536  # a film of four and a half hours at 16 fps
_POSE_BYTES, _KEYS_BYTES = 4 * 16, 4 * 4


class CameraPath(NamedTuple):
    """A camera path per pixel frame: poses `[N, 4, 4]`, walk keys `[F, 4]`, intrinsics."""

    c2w: NDArray[np.float64]
    wasd: Array32 | None
    intrinsics: Intrinsics | None


class FilmPath(msgspec.Struct, frozen=True):
    """A path per latent frame, as bytes: relative poses float32 `[T, 4, 4]`, keys `[T, 4]`."""

    relative: bytes
    keys: bytes | None = None

    @classmethod
    def of(cls, relative: NDArray[np.floating], keys: NDArray[np.floating] | None = None) -> Self:
        """From relative poses `[T, 4, 4]` and walk keys w a s d `[T, 4]`."""
        pressed = None if keys is None else np.ascontiguousarray(keys, dtype=np.float32).tobytes()
        return cls(np.ascontiguousarray(relative, dtype=np.float32).tobytes(), pressed)

    def arrays(self) -> tuple[Array32, Array32 | None]:
        """Poses `[T, 4, 4]` and keys `[T, 4]`. Raises `ControlError` where the bytes do not fit."""
        count, rest = divmod(len(self.relative), _POSE_BYTES)
        fits = self.keys is None or len(self.keys) == count * _KEYS_BYTES
        if rest or not count or not fits:
            raise ControlError(
                "the path's bytes do not fit",
                expected="64 bytes per latent frame, and 16 of keys or none",
                got=f"{len(self.relative)} and {len(self.keys or b'')}",
            )
        keys = None if self.keys is None else np.frombuffer(self.keys, np.float32).reshape(count, 4)
        return np.frombuffer(self.relative, np.float32).reshape(count, 4, 4), keys


class FilmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A film as it is asked for; None leaves a number to the preset.

    `chunks` counts what is generated at once: chunks of a causal model, and clips of a model that
    sees all frames at once, each of which begins with the last picture of the one before. `chunk`,
    `window` and `sink` are latent frames, sizes pixels, `intrinsics` those of an 832x480 picture.
    A `path` has one pose per latent frame of the film, see `film_frames`; None stands still.
    `guidance` 1 means none; `solver` and `branches` are for guided models (see `runtime.films`).
    `loras` are names of loaded adapters with their scales; None are those that all wear.
    """

    prompt: str
    chunks: int = 1
    seed: int = 42
    width: int | None = None
    height: int | None = None
    chunk: int | None = None
    window: int | None = None
    sink: int | None = None
    shift: float | None = None
    steps: int | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    path: FilmPath | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    solver: SolverName | None = None
    branches: BranchesName = "auto"
    loras: tuple[tuple[str, float], ...] | None = None


class FilmProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a film is: `done` of `total` pieces of work, of which one takes one turn.

    `stage` is what was done last: `conditions`, `denoise`, `context` or `decode`; `chunk` of
    `chunks` is under way. `frames` were decoded so far, of `total_frames`.
    """

    stage: str
    done: int
    total: int
    chunk: int
    chunks: int
    frames: int
    total_frames: int


class FilmMotion(NamedTuple):
    """A camera path per latent frame, as long as the film of `chunks` chunks."""

    chunks: int
    relative: Array32 | None
    keys: Array32 | None


def film_frames(chunk: int, chunks: int, *, overlap: int = 0) -> int:
    """Latent frames of a film; `overlap` is 1 where each clip begins with the last one's end."""
    return chunks * (chunk - overlap) + overlap


def fit_path(
    path: CameraPath | None, chunk: int, chunks: int | None, *, overlap: int = 0
) -> FilmMotion:
    """Bring a path to whole chunks of `chunk` latent frames, as the official code does.

    Without `chunks` the film is as long as the path, cut to whole chunks, and spans all of it. With
    `chunks` there is one pose per pixel frame: a longer path is cut, a shorter one stands still at
    its end. Steps are divided by the longest one of the film. Raises: ControlError.
    """
    if path is None:
        return FilmMotion(chunks or IDLE_CHUNKS, None, None)
    if chunks is None:
        # F + 1 poses of F key frames are rounded up to 4n + 1; a recorded path is rounded down.
        rounding = math.ceil if path.wasd is not None else math.floor
        poses = path.c2w
        latent = rounding((len(poses) - 1) / 4) + 1
        chunks = max((latent - overlap) // max(chunk - overlap, 1), 1)
        if path.wasd is None:
            poses = poses[: (len(poses) - 1) // 4 * 4 + 1]
        count = film_frames(chunk, chunks, overlap=overlap)
    else:
        count = film_frames(chunk, chunks, overlap=overlap)
        wanted = 4 * (count - 1) + 1
        still = np.repeat(path.c2w[-1:], max(wanted - len(path.c2w), 0), axis=0)
        poses = np.concatenate([path.c2w[:wanted], still])
    keys = None
    if path.wasd is not None:
        at = 4 * np.arange(count)
        released = np.zeros((max(int(at[-1]) + 1 - len(path.wasd), 0), 4), dtype=np.float32)
        keys = np.concatenate([path.wasd, released])[at]  # T 4
    return FilmMotion(chunks, framewise_relative(interpolate_poses(poses, count)), keys)


def path_frames(path: CameraPath) -> int:
    """Latent frames that a whole path lasts, as the official code counts them."""
    rounding = math.ceil if path.wasd is not None else math.floor
    return rounding((len(path.c2w) - 1) / 4) + 1
