"""What a walk is made of: its start, what was asked for chunk by chunk, and what made it.

All of it is values without torch; `core.worldfile` puts them into a file, `core.walked` collects
them while somebody walks. Equal motions in a row stay one `Run` until they are walked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldline.core.chunk import PICTURES
from worldline.core.config import EngineOptions, WorldInfo
from worldline.core.errors import NewerWorldError, WorldFileError
from worldline.core.motion import Motion, Rig

DIGEST_BYTES: Final = 16
COMPARED: Final = ("model", "weights", "mode", "dtype", "threads", "ranks", "torch", "machine")
IN_PICTURES: Final = ("kernels", "kv", "decoder", "compile", "recache", "lossy")  # options
OF_MEMORY: Final = ("first_chunks_mb", "timeline_mb", "loras")  # this machine's affair
POSE_NUMBERS: Final = 16  # 3x4 of the relative pose, then w a s d

Poses = NDArray[np.float32]  # [T, 16]
OptionValue = str | int | bool | tuple[str, ...]


class Guided(msgspec.Struct, frozen=True, kw_only=True):
    """How a film of a guided model was made; None where the model's own value held.

    `branches` of guidance ran batched or in sequence; the first `overlap` latent frames of a later
    clip are the last ones of the clip before.
    """

    negative_prompt: str | None = None
    guidance: float | None = None
    solver: str | None = None
    branches: str = "sequence"
    overlap: int = 0


class WorldStart(msgspec.Struct, frozen=True, kw_only=True):
    """What the world began with, as the session really was.

    `picture` is an encoded file, `pixels` the digest of what it decodes to. Sizes in pixels;
    `chunk`, `window`, `sink` latent frames; `steps` their number or indices. `shift` and
    `intrinsics` (of an 832x480 picture) are None where the model's own held. `guided` is for films
    that nobody can walk on with the same model.
    """

    pixels: bytes
    prompt: str
    seed: int
    width: int
    height: int
    fps: int
    chunk: int
    window: int
    sink: int
    steps: int | tuple[int, ...]
    rig: Rig
    picture: bytes = b""
    shift: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    guided: Guided | None = None


class MadeWith(msgspec.Struct, frozen=True, kw_only=True):
    """What generated the walk. In exact mode all of it equal means every bit equal."""

    model: str
    weights: str
    mode: str
    dtype: str
    device: str
    threads: int
    torch: str
    machine: str
    options: dict[str, OptionValue]
    ranks: int = 1

    def differences(self, here: MadeWith) -> list[str]:
        """What is other here, in words: reasons for other pictures."""
        told = [(name, getattr(self, name), getattr(here, name)) for name in COMPARED]
        told += [(name, self.options.get(name), here.options.get(name)) for name in IN_PICTURES]
        return [f"{name} was {was}, here {now}" for name, was, now in told if was != now]


class Run(msgspec.Struct, frozen=True, array_like=True):
    """`count` latent frames alike: of one motion, or of these letters held.

    None takes the next `count` rows of the walk's `poses`.
    """

    count: int
    control: Motion | str | None


class PromptAt(msgspec.Struct, frozen=True, array_like=True):
    """From chunk `chunk` on this text holds, blended over so many chunks."""

    chunk: int
    text: str
    blend_chunks: int = 0


class StepsAt(msgspec.Struct, frozen=True, array_like=True):
    """Chunk `chunk` was made with so many denoise passes."""

    chunk: int
    steps: int


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and the digests of what came: 16 bytes a chunk, or none at all.

    Zeros stand for a chunk of which nobody took one.
    `poses` are rows of 16 float32, little-endian: a framewise relative pose 3x4, then w a s d.
    """

    chunks: int
    runs: tuple[Run, ...]
    poses: bytes = b""
    prompts: tuple[PromptAt, ...] = ()
    steps: tuple[StepsAt, ...] = ()
    digests: bytes = b""


class Stepped(NamedTuple):
    """One chunk: its controls (one of the three), what changed with it, the digest of its frames.

    `motions` or `actions` are one per latent frame, `poses` float32 `[T, 16]`.
    """

    motions: tuple[Motion, ...] | None = None
    actions: tuple[tuple[str, ...], ...] | None = None
    poses: Poses | None = None
    prompt: str | None = None
    blend_chunks: int = 0
    steps: int | None = None
    digest: bytes = b""


class WorldFile(msgspec.Struct, frozen=True, kw_only=True):
    """A start, what made it, and the walk."""

    start: WorldStart
    made: MadeWith
    walk: Walk

    @property
    def overlap(self) -> int:
        """Latent frames that a chunk has in common with the one before."""
        return 0 if self.start.guided is None else self.start.guided.overlap

    @property
    def pictures(self) -> int:
        """How many pictures the walk is."""
        chunks, new = self.walk.chunks, self.start.chunk - self.overlap
        return PICTURES * (chunks * new + self.overlap - 1) + 1 if chunks else 0

    @property
    def seconds(self) -> float:
        """Length of the walk in video time."""
        return self.pictures / self.start.fps

    def chunks(self) -> Iterator[Stepped]:
        """Every chunk in order, unpacked one at a time."""
        prompts = {at.chunk: at for at in self.walk.prompts}
        steps = {at.chunk: at.steps for at in self.walk.steps}
        controls = _controls(self.walk)
        for index in range(self.walk.chunks):
            frames = [next(controls) for _ in range(self.start.chunk)]
            prompt = prompts.get(index)
            digest = self.walk.digests[index * DIGEST_BYTES :][:DIGEST_BYTES]
            yield _stepped(frames)._replace(
                prompt=None if prompt is None else prompt.text,
                blend_chunks=0 if prompt is None else prompt.blend_chunks,
                steps=steps.get(index),
                digest=digest if any(digest) else b"",
            )


def made_with(info: WorldInfo) -> MadeWith:
    """What a loaded model says of itself. Of a decoder's file only the name is told."""
    decoder = Path(info.options.decoder).name
    told = msgspec.to_builtins(msgspec.structs.replace(info.options, decoder=decoder))
    options = {name: value for name, value in told.items() if name not in OF_MEMORY}
    return MadeWith(
        model=info.model,
        weights=info.weights,
        mode=info.mode,
        dtype=info.dtype,
        device=info.device,
        threads=info.threads,
        torch=info.torch,
        machine=info.machine,
        ranks=info.ranks,
        options=msgspec.convert(options, dict[str, OptionValue]),
    )


def engine_options(made: MadeWith) -> EngineOptions:
    """The options that a walk was made with. Raises `NewerWorldError` for ones not known here.

    What is this machine's affair stays so: no file of anybody says what is read or kept here.
    """
    unknown = sorted(made.options.keys() - set(EngineOptions.__struct_fields__))
    recorded = {name: value for name, value in made.options.items() if name not in OF_MEMORY}
    try:
        options = msgspec.convert(recorded, EngineOptions)
    except msgspec.ValidationError as error:
        raise NewerWorldError("an option has an unknown value", got=error) from None
    if unknown:
        raise NewerWorldError("options that are not known here", got=", ".join(unknown)[:200])
    return options


def frames_digest(frames: NDArray[np.uint8]) -> bytes:
    """16 bytes that stand for frames, uint8 `F H W 3`."""
    return _digest(frames)


def pixels_digest(picture: NDArray[np.uint8]) -> bytes:
    """16 bytes that stand for a decoded picture, uint8 `H W 3`."""
    return _digest(picture)


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def pose_rows(relative: ArrayLike, keys: ArrayLike | None = None) -> Poses:
    """Framewise relative poses `[T, 4, 4]` and keys w a s d `[T, 4]` as rows `[T, 16]`.

    Raises `WorldFileError` for other shapes, or a last row that is not 0 0 0 1.
    """
    poses = np.asarray(relative, dtype=np.float32)
    held = np.zeros((len(poses), 4)) if keys is None else keys
    down = np.asarray(held, dtype=np.float32)
    if poses.shape[1:] != (4, 4) or down.shape != (len(poses), 4):
        raise WorldFileError("poses have the wrong shape", got=f"{poses.shape}, {down.shape}")
    if not np.array_equal(poses[:, 3], np.tile(np.array([0.0, 0.0, 0.0, 1.0]), (len(poses), 1))):
        raise WorldFileError("the last row of a pose is wrong", expected="0 0 0 1")
    return np.concatenate([poses[:, :3].reshape(-1, 12), down], axis=1)


def relative_and_keys(rows: Poses) -> tuple[Poses, Poses]:
    """Rows `[T, 16]` as relative poses `[T, 4, 4]` and keys `[T, 4]`."""
    relative = np.tile(np.eye(4, dtype=np.float32), (len(rows), 1, 1))
    relative[:, :3] = rows[:, :12].reshape(-1, 3, 4)
    return relative, rows[:, 12:].copy()


def _controls(walk: Walk) -> Iterator[Motion | str | Poses]:
    """One control per latent frame; a row of poses is `[16]`."""
    rows = np.frombuffer(walk.poses, dtype="<f4").reshape(-1, POSE_NUMBERS)
    row = 0
    for run in walk.runs:
        for _ in range(run.count):
            if run.control is None:
                yield rows[row]
                row += 1
            else:
                yield run.control


def _stepped(frames: list[Motion | str | Poses]) -> Stepped:
    if isinstance(frames[0], Motion):
        return Stepped(motions=tuple(frame for frame in frames if isinstance(frame, Motion)))
    if isinstance(frames[0], str):
        return Stepped(actions=tuple(tuple(frame) for frame in frames if isinstance(frame, str)))
    return Stepped(poses=np.stack(frames))  # pyright: ignore  # checked: one kind per chunk
