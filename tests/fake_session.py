"""What the fake engine keeps of a session, and the chunks it hands out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import START, CameraState, advance
from worldline.core.chunk import Decoded
from worldline.core.config import WorldInfo
from worldline.core.errors import SnapshotError
from worldline.core.motion import Motion, Pose
from worldline.core.snapshot import LightChunk, LightPrompt, LightSnapshot, decode_snapshot
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
        weights="fake",
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
    """What the fake engine keeps of one session; `digest` depends on all its input so far.

    Its light snapshots are real ones, with the digest for latents.
    """

    def __init__(self, request: OpenRequest, reply: OpenReply) -> None:
        self.request = request
        self.reply = reply
        self.stepping = self.parked = self.aborted = False
        self.reset(request.seed)
        if request.light is not None:
            self._stand_at(decode_snapshot(request.light))
        elif request.snapshot is not None:
            self._stand_at(decode_snapshot(Path(request.snapshot).read_bytes()))

    def reset(self, seed: int) -> None:
        """As if just opened with that seed."""
        self.seed, self.next_chunk, self.camera = seed, 0, START
        self.digest = _mixed((self.request.prompt, seed), self.request.image)
        self.light = LightSnapshot(
            weights="fake",
            seed=seed,
            width=self.reply.width,
            height=self.reply.height,
            chunk=self.reply.chunk,
            window=self.reply.window,
            sink=self.reply.sink,
            history=2,
            prompt=LightPrompt(self.request.prompt),
        )
        self._places = [self.light]

    def rewind(self, chunk: int) -> None:
        """Stand before an earlier chunk. Raises `SnapshotError` for one that it does not know."""
        found = [place for place in self._places if place.next_chunk == chunk]
        if not found:
            raise SnapshotError("no such place in the walk", got=chunk)
        places = self._places[: self._places.index(found[0]) + 1]
        self._stand_at(found[0])
        self._places = places

    def branch(self, reply: OpenReply, chunk: int | None) -> FakeSession:
        """Another one that stands here, or before `chunk`."""
        request = msgspec.structs.replace(
            self.request, session_id=reply.session_id, light=None, snapshot=None
        )
        made = FakeSession(request, reply)
        made._stand_at(self.light)
        made._places = list(self._places)
        if chunk is not None:
            made.rewind(chunk)
        return made

    def keep(self, request: StepRequest) -> bytes:
        """What the chunk that was just made adds to a light snapshot."""
        size = 16 * (self.reply.width // 8) * (self.reply.height // 8) * self.reply.chunk * 4
        prompt = self.light.prompt
        kept = LightChunk(
            index=request.chunk_index,
            frames=self.reply.chunk,
            latents=self.digest.ljust(size, b"\0"),
            relative=bytes(64 * self.reply.chunk),
            keys=bytes(16 * self.reply.chunk),
            poses=self._path,
            prompt=prompt if request.prompt is None else LightPrompt(request.prompt),
        )
        self.light = self.light.with_chunk(kept)
        self._places.append(self.light)
        return kept.encode()

    def _stand_at(self, light: LightSnapshot) -> None:
        pose = light.camera
        rows = np.array([*pose.c2w, 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
        self.camera = CameraState(rows, pose.pitch, pose.yaw)
        self.seed, self.next_chunk, self.light = light.seed, light.next_chunk, light
        if light.chunks:
            self.digest = light.chunks[-1].latents[:32]
        else:
            self.digest = _mixed((self.request.prompt, light.seed), self.request.image)
        self._places = [light]

    def poses(self, request: StepRequest) -> tuple[Pose, ...]:
        """Move the camera as the engine does; one pose per latent frame."""
        found: list[Pose] = []
        for i, asked in enumerate(controls_of(request)):
            if i or request.chunk_index:  # the first latent frame is the picture itself
                self.camera = advance(self.camera, asked, self.reply.rig)
            found.append(self.camera.pose)
        self._path = tuple(found)
        return self._path

    def frames(self, request: StepRequest) -> NDArray[np.uint8]:
        """Blocky noise `F H W 3` that only this history gives."""
        controls = controls_of(request)
        self.digest = _mixed((controls, request.prompt), self.digest)
        seed = int.from_bytes(self.digest[:8], "big")
        count = self.reply.frames_in_chunk(request.chunk_index)
        shape = (count, self.reply.height // BLOCK, self.reply.width // BLOCK, 3)
        noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return noise.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)  # F H W 3


def _mixed(told: object, data: bytes) -> bytes:
    """A digest of both."""
    return hashlib.sha256(repr(told).encode() + data).digest()


def parts_of(result: StepResult) -> list[Decoded]:
    """The frames of a chunk, latent frame by latent frame, as an engine hands them on."""
    parts: list[Decoded] = []
    first = 0
    for i, pose in enumerate(result.poses):
        count = 1 if result.index == i == 0 else 4
        parts.append(Decoded(i, first, result.frames[first : first + count], pose))
        first += count
    return parts
