"""Light snapshots in the engine: chunks to numbers and back, and the history made from them.

`walking` makes every chunk of a walk again from its latents, by the very code that made it: the
bits of the ring, of the decoder and of everything else are those that were. `rebuilding` has the
latents of the window only: the sink first, then each chunk attends to the sink and to what was made
before it, as `replay.recache` does; the decoder runs over what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from worldline.core.camera import CameraState
from worldline.core.errors import OtherWeightsError, SnapshotError
from worldline.core.motion import Pose
from worldline.core.snapshot import (
    LATENT_CHANNELS,
    LightChunk,
    LightPrompt,
    LightSnapshot,
    Reach,
)
from worldline.models.preset import RuntimeParams
from worldline.ops.vae import StreamState
from worldline.runtime import conditions, pipeline, replay
from worldline.runtime.conditions import Moved
from worldline.runtime.noise import SeededNoise
from worldline.runtime.outlet import Outlet
from worldline.runtime.pipeline import Coming
from worldline.runtime.replay import Past
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState
from worldline.runtime.timeline import Record
from worldline.runtime.transfer import settled, upload

# Latent frames that a decoder is run over before the first picture that is shown. Of the pocket
# world's nothing older reaches a picture; with Wan's, less than a twentieth of a level of it does.
DECODER_FRAMES = {"pocket": 7}
OTHER_DECODERS = 20


def reach_of(engine: Engine, settings: RuntimeParams) -> Reach:
    """How far back a session of those settings reaches."""
    history = DECODER_FRAMES.get(engine.preset.family, OTHER_DECODERS)
    return Reach(settings.chunk, settings.window, settings.sink, history)


def light_of(engine: Engine, state: SessionState) -> LightSnapshot:
    """The light snapshot of a session as it stands. Raises `SnapshotError` without a seed."""
    return light_at(engine, state, state.next_chunk)


def light_at(engine: Engine, state: SessionState, chunk: int) -> LightSnapshot:
    """The one of the place before `chunk`. Raises `SnapshotError` where too little is left."""
    if not isinstance(state.noise, SeededNoise):
        raise SnapshotError("only a world with a seed has a light snapshot", got=state.noise)
    assert state.timeline is not None, "every session of a world has one"
    needed, settings = state.timeline.needed(chunk), state.settings
    engine.lane.join()
    settled(engine.dit.device)
    snapshot = LightSnapshot(
        weights=engine.weights,
        seed=state.noise.seed,
        width=state.geometry.width,
        height=state.geometry.height,
        chunk=settings.chunk,
        window=settings.window,
        sink=settings.sink,
        history=state.timeline.reach.history,
        prompt=state.origin.prompt.said,
        next_chunk=chunk,
        chunks=tuple(chunk_of(record) for record in needed),
    )
    if needed:
        last = needed[-1]
        snapshot = msgspec.structs.replace(
            snapshot,
            prompt=last.prompt,
            anchor=last.anchor,
            sink_shift=last.sink_shift,
            camera=last.motion.camera.pose,
        )
    snapshot.check()
    return snapshot


def chunk_of(record: Record) -> LightChunk:
    """A record in numbers; its latents have arrived."""
    motion = record.motion
    return LightChunk(
        index=record.chunk,
        frames=len(record.frames),
        latents=record.latents.numpy().astype("<f4").tobytes(),
        relative=motion.relative.astype("<f4").tobytes(),
        keys=motion.keys.astype("<f4").tobytes(),
        poses=tuple(camera.pose for camera in motion.path),
        prompt=record.prompt,
        anchor=record.anchor,
        sink_shift=record.sink_shift,
    )


def record_of(chunk: LightChunk, size: tuple[int, int]) -> Record:
    """The record of a chunk that has been checked; `size` `(h, w)` of the latent grid."""
    frames = chunk.frames
    latents = np.frombuffer(chunk.latents, "<f4").astype(np.float32)
    motion = Moved(
        np.frombuffer(chunk.relative, "<f4").astype(np.float32).reshape(frames, 4, 4),
        np.frombuffer(chunk.keys, "<f4").astype(np.float32).reshape(frames, 4),
        tuple(camera_of(pose) for pose in chunk.poses),
    )
    return Record(
        chunk.span,
        torch.from_numpy(latents.reshape(1, LATENT_CHANNELS, frames, *size)),
        motion,
        chunk.prompt,
        chunk.anchor,
        chunk.sink_shift,
    )


def camera_of(pose: Pose) -> CameraState:
    """The camera that stands at a pose."""
    c2w = np.array([*pose.c2w, 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
    return CameraState(c2w, pose.pitch, pose.yaw)


class Said:
    """Text states of what was said; equal words give the same object, as they did."""

    def __init__(self, engine: Engine, now: PromptStates) -> None:
        """`now` is the prompt in force."""
        self._engine = engine
        self._known: dict[LightPrompt, PromptStates] = {now.said: now}

    def states(self, said: LightPrompt) -> PromptStates:
        """Raises `PromptError` for a text without words."""
        if said not in self._known:
            self._known[said] = self._made(said)
        return self._known[said]

    def _made(self, said: LightPrompt) -> PromptStates:
        text = self._engine.text(said.heading)
        blend, rows = (said.blend_chunks, said.blended), said.rows
        if said.blended >= said.blend_chunks:
            plain = conditions.plain_prompt(said.heading, text)
            # Rows of a text that was blended to are those of the longest on the way.
            return replace(plain, rows=rows, blend_chunks=blend[0], blended=blend[1], said=said)
        source = self._folded(said.source)
        before = max(0, said.blended - 1)
        now = PromptStates(
            current=source,
            source=source,
            target=text.states,
            rows=rows,
            blend_chunks=said.blend_chunks,
            blended=before,
            said=msgspec.structs.replace(said, blended=before),
        )
        return now if said.blended == 0 else conditions.advance_prompt(now)

    def _folded(self, words: Sequence[tuple[str, float]]) -> Tensor:
        first, *others = words
        states = self._engine.text(first[0]).states
        for text, share in others:
            states = torch.lerp(states, self._engine.text(text).states, share)
        return states


def walking(engine: Engine, state: SessionState, records: Iterable[Record]) -> Iterator[None]:
    """Make the next chunks of a session again, as they were recorded, one by one."""
    said = Said(engine, state.prompt)
    for record in records:
        assert record.chunk == state.next_chunk, "chunk after chunk"
        latents = upload(record.latents, engine.dit.device)
        prompt = said.states(record.prompt)
        coming = Coming(record.frames, record.motion, prompt, Outlet(), known=latents)
        try:
            made = pipeline.generate(engine, state, coming, engine.clock())
        except BaseException:
            engine.workspace.clear()
            state.kv.rewind(record.frames.start)
            raise
        state.opening = None
        pipeline.write_back(state, coming, made)
        yield


def rebuilding(
    engine: Engine, state: SessionState, light: LightSnapshot, records: Sequence[Record]
) -> Iterator[None]:
    """Let a session stand where `light` was taken, its history made of the window alone."""
    said, sink = Said(engine, state.origin.prompt), state.settings.sink
    state.begin_again(light.seed)
    held = state.kv.present_frames(light.next_chunk * light.chunk)
    halves = [frame for frame in held if frame < sink], [f for f in held if f >= sink]
    known: list[int] = []
    for record in records:
        latents = upload(record.latents, engine.dit.device)
        prompt = said.states(record.prompt)
        past = Past(record.frames, latents, record.motion, prompt, light.anchor)
        for half, shift in zip(halves, (light.sink_shift, 0), strict=True):
            part = past.only(half)
            if part is not None:
                known += part.frames
                state.anchor = light.anchor - shift  # the sink's keys count from elsewhere
                state.kv.begin_chunk(part.frames.start, len(part.frames), visible=known)
                replay.commit_past(engine, state, part, prompt)
        if state.past is not None:
            state.past.keep(past, held)
        yield
    state.decoder = _decoder_after(engine, records)
    state.next_chunk, state.anchor = light.next_chunk, light.anchor
    state.sink_shift, state.camera = light.sink_shift, camera_of(light.camera)
    state.prompt, state.start = said.states(light.prompt), None


def _decoder_after(engine: Engine, records: Sequence[Record]) -> StreamState | None:
    """The decoder's history after the newest chunks that are there without a gap."""
    newest = list(records)
    for i in range(len(records) - 1, 0, -1):
        if records[i - 1].chunk + 1 != records[i].chunk:
            newest = list(records[i:])
            break
    decoder = None
    for record in newest:
        latents = upload(record.latents, engine.dit.device)
        with engine.lane.decoding(latents):
            _, decoder = engine.vae.decode_stream(latents, decoder)
    return decoder


def check_fits(engine: Engine, state: SessionState, light: LightSnapshot) -> None:
    """Raise `OtherWeightsError` or `SnapshotError` unless a session can stand there."""
    if light.weights != engine.weights:
        raise OtherWeightsError(
            "a snapshot made with other weights", expected=engine.weights, got=light.weights
        )
    light.check()
    numbers = state.settings
    wanted = (*state.geometry, numbers.chunk, numbers.window, numbers.sink)
    found = (light.width, light.height, light.chunk, light.window, light.sink)
    if wanted != found:
        raise SnapshotError("a snapshot of a world of other sizes", expected=wanted, got=found)
