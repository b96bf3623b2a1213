"""What the fake engine keeps of a session, and the chunks it hands out."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import START, advance
from worldline.core.chunk import Decoded
from worldline.core.config import WorldInfo
from worldline.core.motion import Motion, Pose
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, StepReply, StepRequest

SIZES: Final = ((64, 48), (128, 96), (48, 64))  # width, height
BLOCK: Final = 8


def controls_of(request: StepRequest) -> tuple[tuple[str, ...], ...] | tuple[Motion, ...]:
    """What moves the camera, per latent frame."""
    return request.actions if request.motions is None else request.motions


def fake_info(
    *, chunk: int = 3, window: int = 9, sizes: tuple[tuple[int, int], ...] = SIZES
) -> WorldInfo:
    """A small world with a landscape, a larger landscape and a portrait size."""
    width, height = sizes[0]
    return WorldInfo(
        model="fake",
        family="fake",
        width=width,
        height=height,
        sizes=sizes,
        fps=16,
        chunk=chunk,
        window=window,
        sink=2,
        steps=4,
        device="cpu",
        dtype="float32",
        mode="exact",
        licence="none",
    )


class CountedResult(StepResult):
    """A result that knows how often it was released and spoils its pixels then."""

    def __init__(self, reply: StepReply, frames: NDArray[np.uint8]) -> None:
        self.released = 0
        self._pixels = frames
        super().__init__(reply, frames, lambda: None)

    def release(self) -> None:
        """Count, and overwrite the frames as the next chunk would."""
        self.released += 1
        self._pixels[...] = 0
        super().release()


class FakeSession:
    """What the fake engine keeps of one session; `digest` depends on all its input so far."""

    def __init__(self, request: OpenRequest, reply: OpenReply) -> None:
        self.request = request
        self.reply = reply
        self.stepping = self.parked = self.aborted = False
        self.reset(request.seed)

    def reset(self, seed: int) -> None:
        """As if just opened with that seed."""
        self.seed, self.next_chunk, self.camera = seed, 0, START
        self.digest = hashlib.sha256(repr((self.request.prompt, seed)).encode())
        self.digest.update(self.request.image)

    def poses(self, request: StepRequest) -> tuple[Pose, ...]:
        """Move the camera as the engine does; one pose per latent frame."""
        found: list[Pose] = []
        for i, asked in enumerate(controls_of(request)):
            if i or request.chunk_index:  # the first latent frame is the picture itself
                self.camera = advance(self.camera, asked, self.reply.rig)
            found.append(self.camera.pose)
        return tuple(found)

    def frames(self, request: StepRequest) -> NDArray[np.uint8]:
        """Blocky noise `F H W 3` that only this history gives."""
        controls = controls_of(request)
        self.digest.update(repr((controls, request.prompt)).encode())
        seed = int.from_bytes(self.digest.digest()[:8], "big")
        count = self.reply.frames_in_chunk(request.chunk_index)
        shape = (count, self.reply.height // BLOCK, self.reply.width // BLOCK, 3)
        noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return noise.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)  # F H W 3


def parts_of(result: StepResult) -> list[Decoded]:
    """The frames of a chunk, latent frame by latent frame, as an engine hands them on."""
    parts: list[Decoded] = []
    first = 0
    for i, pose in enumerate(result.poses):
        count = 1 if result.index == i == 0 else 4
        parts.append(Decoded(i, first, result.frames[first : first + count], pose))
        first += count
    return parts
