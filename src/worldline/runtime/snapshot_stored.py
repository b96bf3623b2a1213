"""An exact snapshot as plain values and a list of tensors, and back.

Tensors are named by their place in the list; what was one tensor, or one prompt, is one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from worldline.core.camera import Intrinsics
from worldline.core.errors import SnapshotError
from worldline.core.motion import Pose, Rig
from worldline.core.snapshot import MAX_SIDE, LightChunk, LightPrompt, LightSnapshot
from worldline.models.pocket.vae import PocketVAEState
from worldline.models.preset import RuntimeParams
from worldline.models.wan.tiny import TinyState
from worldline.models.wan.vae_state import VaeState
from worldline.ops.vae import StreamState
from worldline.runtime.conditions import Moved
from worldline.runtime.moment import Moment, Values
from worldline.runtime.noise import SeededNoise
from worldline.runtime.pages import Page, Written
from worldline.runtime.replay import Past
from worldline.runtime.snapshot import Kind, Snapshot
from worldline.runtime.snapshot_light import camera_of, chunk_of, record_of
from worldline.runtime.state import Geometry, ImageCondition, Origin, PromptStates
from worldline.runtime.timeline import Timeline

_NAMED: Final = ("float32", "float16", "bfloat16", "float64", "int8", "uint8", "int32", "int64")
DTYPES: Final = {name: getattr(torch, name) for name in _NAMED}


class TensorAt(msgspec.Struct, frozen=True, array_like=True):
    """One of the tensors that follow."""

    dtype: str
    shape: tuple[int, ...]


class StoredStream(msgspec.Struct, frozen=True, array_like=True):
    """What a decoder or an encoder carries; `slots` are places of tensors."""

    kind: Literal["wan", "pocket", "tiny"]
    slots: tuple[int | None, ...]
    direction: Literal["encode", "decode"] = "decode"
    latents: int = 0


class StoredPrompt(msgspec.Struct, frozen=True, array_like=True):
    """See `PromptStates`; places of tensors."""

    current: int
    source: int
    target: int
    rows: int | None
    blend_chunks: int
    blended: int
    said: LightPrompt


class StoredPast(msgspec.Struct, frozen=True, array_like=True):
    """See `Past`; places of the latents and of the prompt."""

    start: int
    count: int
    latents: int
    relative: bytes
    keys: bytes
    poses: tuple[Pose, ...]
    prompt: int
    anchor: int


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a snapshot that is no tensor. `frames` are those of the ring, with places."""

    weights: str
    width: int
    height: int
    settings: RuntimeParams
    intrinsics: tuple[float, float, float, float]
    rig: Rig
    ring: str
    dtype: str
    seed: int
    start: bytes | None
    digest: bytes | None
    next_chunk: int
    anchor: int
    sink_shift: int
    camera: Pose
    picture: int
    latents: int | None
    encoder: StoredStream | None
    decoder: StoredStream | None
    prompts: tuple[StoredPrompt, ...]
    prompt: int
    origin: int
    past: tuple[StoredPast, ...]
    frames: tuple[tuple[int, tuple[int, ...]], ...]
    chunks: tuple[LightChunk, ...]
    tensors: tuple[TensorAt, ...]

    @property
    def kind(self) -> Kind:
        """What a session must be to stand here."""
        return Kind(
            self.weights,
            Geometry(self.width, self.height),
            self.settings,
            Intrinsics(*self.intrinsics),
            self.rig,
            self.ring,
            self.dtype,
        )

    def check(self) -> None:
        """Raise `SnapshotError` unless every place it names is there, and its walk can be."""
        sides = (self.width, self.height)
        if not all(0 < side <= MAX_SIDE and side % 16 == 0 for side in sides):
            raise SnapshotError("a snapshot of another size than can be", got=sides)
        end = self.next_chunk * self.settings.chunk
        if self.next_chunk < 0 or not 0 <= self.anchor <= end or not 0 <= self.sink_shift <= end:
            raise SnapshotError("a snapshot of a place that cannot be", got=self.next_chunk)
        places = [self.picture, *(place for _, rows in self.frames for place in rows)]
        places += [] if self.latents is None else [self.latents]
        for stream in (self.encoder, self.decoder):
            places += [] if stream is None else [s for s in stream.slots if s is not None]
        for prompt in self.prompts:
            places += [prompt.current, prompt.source, prompt.target]
            prompt.said.check()
        places += [past.latents for past in self.past]
        prompts = [self.prompt, self.origin, *(past.prompt for past in self.past)]
        for found, there in ((places, self.tensors), (prompts, self.prompts)):
            if not all(0 <= place < len(there) for place in found):
                raise SnapshotError("a snapshot that names what it does not hold")
        self._check_chunks()

    def _check_chunks(self) -> None:
        numbers = self.settings
        frame = LightSnapshot(
            weights=self.weights,
            seed=self.seed,
            width=self.width,
            height=self.height,
            chunk=numbers.chunk,
            window=numbers.window,
            sink=numbers.sink,
            history=0,
            prompt=LightPrompt(""),
            camera=self.camera,
        )
        frame.check()
        for chunk in self.chunks:
            frame.check_chunk(chunk)
            if not 0 <= chunk.index < self.next_chunk:
                raise SnapshotError("a snapshot with a chunk that is no part of it")
        for past in self.past:
            sizes = (len(past.poses), len(past.relative), len(past.keys))
            if past.count < 1 or sizes != (past.count, past.count * 64, past.count * 16):
                raise SnapshotError("a snapshot with controls of another size", got=sizes)


class _Taking:
    """Puts tensors on the list, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.prompts: list[StoredPrompt] = []
        self._places: dict[int, int] = {}
        self._known: dict[int, int] = {}

    def tensor(self, tensor: Tensor) -> int:
        """Its place."""
        if id(tensor) not in self._places:
            self._places[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
        return self._places[id(tensor)]

    def prompt(self, one: PromptStates) -> int:
        """Its place."""
        if id(one) not in self._known:
            self._known[id(one)] = len(self.prompts)
            places = (self.tensor(one.current), self.tensor(one.source), self.tensor(one.target))
            counts = (one.rows, one.blend_chunks, one.blended)
            self.prompts.append(StoredPrompt(*places, *counts, one.said))
        return self._known[id(one)]

    def stream(self, state: StreamState | None) -> StoredStream | None:
        """What an autoencoder carries. Raises `SnapshotError` for one that is shared out."""
        if state is None:
            return None
        if isinstance(state, VaeState | PocketVAEState) and state.part is not None:
            raise SnapshotError("an autoencoder on several devices is not written", got=state.part)
        if isinstance(state, VaeState):
            slots = tuple(None if slot is None else self.tensor(slot) for slot in state.slots)
            return StoredStream("wan", slots, state.direction, state.latents)
        if isinstance(state, PocketVAEState):
            return StoredStream("pocket", tuple(self.tensor(t) for t in state.tensors))
        if isinstance(state, TinyState):
            return StoredStream("tiny", tuple(self.tensor(t) for t in state.past))
        raise SnapshotError("an autoencoder on several devices is not written", got=type(state))

    def past(self, past: Past) -> StoredPast:
        """A chunk of the window's history."""
        motion = past.motion
        return StoredPast(
            past.frames.start,
            len(past.frames),
            self.tensor(past.latents),
            motion.relative.astype("<f4").tobytes(),
            motion.keys.astype("<f4").tobytes(),
            tuple(camera.pose for camera in motion.path),
            self.prompt(past.prompt),
            past.anchor,
        )


def stored(snapshot: Snapshot) -> tuple[Stored, list[Tensor]]:
    """A snapshot in parts. Raises `SnapshotError` for one that cannot be written."""
    kind, there, taking = snapshot.kind, snapshot.moment, _Taking()
    if not isinstance(there.noise, SeededNoise):
        raise SnapshotError("only a world with a seed is written", got=there.noise)
    values = there.values
    image = values.image
    made = Stored(
        weights=kind.weights,
        width=kind.geometry.width,
        height=kind.geometry.height,
        settings=kind.settings,
        intrinsics=kind.intrinsics,
        rig=kind.rig,
        ring=kind.ring,
        dtype=kind.dtype,
        seed=there.noise.seed,
        start=there.start,
        digest=values.origin.digest,
        next_chunk=there.next_chunk,
        anchor=there.anchor,
        sink_shift=there.sink_shift,
        camera=there.camera.pose,
        picture=taking.tensor(image.picture),
        latents=None if image.latents is None else taking.tensor(image.latents),
        encoder=taking.stream(image.encoder),
        decoder=taking.stream(there.decoder),
        prompt=taking.prompt(values.prompt),
        origin=taking.prompt(values.origin.prompt),
        past=tuple(taking.past(past) for past in values.past),
        frames=tuple(
            (page.frame, tuple(taking.tensor(rows) for rows in page.rows)) for page in there.pages
        ),
        chunks=tuple(chunk_of(record) for record in snapshot.timeline.records),
        prompts=(),
        tensors=(),
    )
    tensors = [TensorAt(str(t.dtype).partition(".")[2], tuple(t.shape)) for t in taking.tensors]
    parts = {"prompts": tuple(taking.prompts), "tensors": tuple(tensors)}
    return msgspec.structs.replace(made, **parts), taking.tensors


def unstored(header: Stored, tensors: Sequence[Tensor], timeline: Timeline) -> Snapshot:
    """The snapshot of a header that was checked and its tensors; `timeline` is an empty one."""
    prompts = [_prompt(one, tensors) for one in header.prompts]
    latents = None if header.latents is None else tensors[header.latents]
    encoder = _stream(header.encoder, tensors)
    image = ImageCondition(tensors[header.picture], latents, encoder)
    origin = Origin(prompts[header.origin], header.digest)
    past = tuple(_past(one, tensors, prompts) for one in header.past)
    moment = Moment(
        next_chunk=header.next_chunk,
        anchor=header.anchor,
        sink_shift=header.sink_shift,
        camera=camera_of(header.camera),
        noise=SeededNoise(header.seed),
        start=header.start,
        values=Values(image, prompts[header.prompt], origin, past),
        decoder=_stream(header.decoder, tensors),
        pages=tuple(
            Page(frame, Written(), tuple(tensors[place] for place in rows))
            for frame, rows in header.frames
        ),
        end=header.next_chunk * header.settings.chunk,
        keys={},
    )
    for page in moment.pages:
        page.written.note(page)
    kind = header.kind
    for chunk in header.chunks:
        timeline.append(record_of(chunk, kind.geometry.latent))
    return Snapshot(kind, moment, timeline)


def _prompt(one: StoredPrompt, tensors: Sequence[Tensor]) -> PromptStates:
    states = (tensors[one.current], tensors[one.source], tensors[one.target])
    return PromptStates(*states, one.rows, one.blend_chunks, one.blended, one.said)


def _stream(one: StoredStream | None, tensors: Sequence[Tensor]) -> StreamState | None:
    if one is None:
        return None
    if one.kind == "wan":
        slots = tuple(None if slot is None else tensors[slot] for slot in one.slots)
        return VaeState(one.direction, one.latents, slots)
    held = tuple(tensors[slot] for slot in one.slots if slot is not None)
    return PocketVAEState(held) if one.kind == "pocket" else TinyState(held)


def _past(one: StoredPast, tensors: Sequence[Tensor], prompts: Sequence[PromptStates]) -> Past:
    motion = Moved(
        np.frombuffer(one.relative, "<f4").astype(np.float32).reshape(-1, 4, 4),
        np.frombuffer(one.keys, "<f4").astype(np.float32).reshape(-1, 4),
        tuple(camera_of(pose) for pose in one.poses),
    )
    frames = range(one.start, one.start + one.count)
    return Past(frames, tensors[one.latents], motion, prompts[one.prompt], one.anchor)
