"""One live world: a thin shell around its `SessionState` that steps it chunk by chunk."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.camera import scale_intrinsics
from worldline.core.chunk import Chunk, Decoded
from worldline.core.errors import ConfigError, SessionClosedError, SnapshotError
from worldline.core.snapshot import LightChunk, LightSnapshot, chunk_back
from worldline.models.wan.tiny import PreviewVae
from worldline.runtime import (
    conditions,
    first_chunk,
    parking,
    pipeline,
    snapshot,
    snapshot_file,
    snapshot_light,
)
from worldline.runtime.conditions import Controls
from worldline.runtime.outlet import Outlet
from worldline.runtime.protocol import Rebuilt
from worldline.runtime.shared import Engine
from worldline.runtime.snapshot import Snapshot
from worldline.runtime.snapshot_stored import stored
from worldline.runtime.state import SessionState
from worldline.runtime.transfer import settled
from worldline.runtime.travels import at_once


class _Live(NamedTuple):
    engine: Engine
    state: SessionState


class Session:
    """One live world. Not thread-safe: the worker's one thread steps all sessions."""

    def __init__(self, engine: Engine, state: SessionState) -> None:
        self._live: _Live | None = _Live(engine, state)
        engine.sessions.add(self)
        self.width, self.height = state.geometry
        self.chunk, self.window = state.settings.chunk, state.settings.window
        self.sink, self.steps = state.settings.sink, len(state.settings.steps)
        self.intrinsics, self.rig = scale_intrinsics(state.intrinsics, *state.geometry), state.rig

    @property
    def next_chunk(self) -> int:
        """Index of the chunk that the next `step` returns."""
        return self._open().state.next_chunk

    @property
    def state(self) -> SessionState:
        """All history of this session. Raises `SessionClosedError`."""
        return self._open().state

    @property
    def engine(self) -> Engine:
        """What this session shares with others. Raises `SessionClosedError`."""
        return self._open().engine

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._live is not None

    @property
    def parked(self) -> bool:
        """Whether the state is in host memory."""
        return self._live is not None and self._live.state.parked

    @torch.no_grad()
    def step(
        self,
        controls: Controls = None,
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
        steps: int | None = None,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
    ) -> Chunk:
        """Generate the next chunk; a parked session comes back first.

        `controls` is one collection of action letters or one `Motion` per latent frame, or
        framewise relative poses `[T, 4, 4]`, or None to stand still. A `prompt` takes over from
        this chunk on, at once or blended over `blend_chunks` chunks. `steps` makes this chunk with
        fewer denoise passes than the session has. `aborted` is asked between two passes: True
        gives the chunk up. `on_frames` is given each latent frame's pictures as they are decoded;
        from the first of them on nothing is given up. Raises `ControlError`, `PromptError`,
        `ConfigError`, `AbortedError`, `SessionClosedError`; then the session is as it was.
        """
        engine, state = self._open()
        self.unpark()
        snapshot.note(engine, state)  # the last time that all of it is there
        clock = engine.clock()
        outlet = _outlet(engine, aborted, on_frames)
        before, start, index = state.prompt, state.start, state.next_chunk
        if prompt is not None:
            with clock.stage("conditions"):
                text = engine.text(prompt)
                state.prompt = conditions.switch_prompt(before, text, blend_chunks, words=prompt)
        if prompt is not None or (steps is not None and index == 0):
            state.start = None  # no longer an ordinary one
        try:
            made = pipeline.next_chunk(engine, state, controls, clock, outlet=outlet, steps=steps)
        except BaseException:
            state.prompt, state.start = before, start
            raise
        with clock.stage("transfer"):
            frames = outlet.frames() if outlet.streams else engine.lane.fetch(made.video)
        return Chunk(index, frames, clock.timings(), outlet.poses)

    @torch.no_grad()
    def prepare(self) -> None:
        """Between two chunks: encode what the next one needs of the picture, keep what was made."""
        engine, state = self._open()
        if state.parked:
            return
        start = state.next_frame
        pipeline.picture_condition(engine, state, range(start, start + self.chunk))
        first_chunk.remember(engine, state)
        snapshot.note(engine, state)

    def park(self) -> None:
        """Move all state to host memory, bit for bit; the device's is free for others."""
        for _ in self.moving():
            pass

    def unpark(self) -> None:
        """Move it back, as the next step would. Raises `CapacityError`."""
        for _ in self.moving(back=True):
            pass

    @torch.no_grad()
    def moving(self, *, back: bool = False) -> Iterator[None]:
        """`park`, or `unpark` with `back`, a piece at a time; no step before the last of them."""
        engine, state = self._open()
        move = parking.unparking if back else parking.parking
        yield from move(engine, state)

    def light_snapshot(self) -> LightSnapshot:
        """`snapshot(light=True)`."""
        engine, state = self._open()
        return snapshot_light.light_of(engine, state)

    @overload
    def snapshot(self) -> Snapshot: ...
    @overload
    def snapshot(self, *, light: Literal[False]) -> Snapshot: ...
    @overload
    def snapshot(self, *, light: Literal[True]) -> LightSnapshot: ...

    @torch.no_grad()
    def snapshot(self, *, light: bool = False) -> Snapshot | LightSnapshot:
        """The session as it stands, to come back to with `restore` or `World.resume`.

        Bit for bit; frames that did not change since the last one are shared with it. A light one
        holds latents, controls and seed, and its history is made anew from them.
        """
        engine, state = self._open()
        if light:
            return self.light_snapshot()
        return at_once(snapshot.snapshotting(engine, state))

    @torch.no_grad()
    def restore(self, kept: Snapshot | LightSnapshot) -> Rebuilt:
        """Stand where a snapshot was taken, of this session or of another of the same kind.

        An exact one gives back every bit. A light one is rebuilt: "exact" where it reaches back to
        the first chunk, or from the "window" alone. Raises `SnapshotError`, `OtherWeightsError`.
        """
        return at_once(self.restoring(kept))

    @torch.no_grad()
    def restoring(self, kept: Snapshot | LightSnapshot) -> Generator[None, None, Rebuilt]:
        """`restore`, a piece at a time."""
        engine, state = self._open()
        if isinstance(kept, LightSnapshot):
            return (yield from snapshot.standing_at(engine, state, kept))
        yield from snapshot.restoring(engine, state, kept)
        return ""

    def branch(self, n: int = 1, *, chunk: int | None = None) -> list[Session]:
        """`n` sessions that stand where this one does, or before an earlier chunk of its walk.

        They hold what this one holds, not a copy, and take nothing of the device until they are
        stepped; `park` gives it back. Raises `SnapshotError` for a place that is not kept.
        """
        if n < 1:
            raise ConfigError("no branches", expected="at least 1", got=n)
        first, _ = at_once(self.branching(chunk))
        made = [first]
        while len(made) < n:
            made.append(at_once(first.branching(None))[0])
        return made

    @torch.no_grad()
    def branching(self, chunk: int | None) -> Generator[None, None, tuple[Session, Rebuilt]]:
        """`branch` into one session, a piece at a time; what it gives also says how."""
        engine, state = self._open()
        made = Session(engine, snapshot.twin(engine, state, uuid.uuid4().hex))
        try:
            rebuilt = yield from snapshot.branching(engine, state, made.state, chunk)
        except BaseException:
            made.close()
            raise
        return made, rebuilt

    def rewind(self, seconds: float | None = None, *, chunk: int | None = None) -> int:
        """Go back so many seconds of the walk, or to before a chunk; returns where it stands.

        What came after that is forgotten: the next step makes that chunk anew. Every bit is as it
        was then, unless `rewinding` says otherwise. Raises `SnapshotError` for a place that is not
        kept.
        """
        state = self._open().state
        if (seconds is None) == (chunk is None):
            raise ConfigError("rewind to a chunk or by seconds", expected="one of the two")
        if chunk is None:
            assert seconds is not None, "one of the two"
            fps = self._open().engine.preset.fps
            chunk = chunk_back(state.next_chunk, seconds, chunk=self.chunk, fps=fps)
        at_once(self.rewinding(chunk))
        return state.next_chunk

    @torch.no_grad()
    def rewinding(self, chunk: int) -> Generator[None, None, Rebuilt]:
        """`rewind` to before a chunk, a piece at a time; what it gives says how."""
        engine, state = self._open()
        return (yield from snapshot.rewinding(engine, state, chunk))

    def save(self, path: str | Path) -> int:
        """Write the session as it stands to a file, for `World.reopen`; returns its bytes."""
        return at_once(self.writing(str(path)))

    @torch.no_grad()
    def writing(self, path: str) -> Generator[None, None, int]:
        """`save`, a piece at a time; after the first the session may be stepped meanwhile.

        Raises `SnapshotError` where it cannot be written.
        """
        header, tensors = stored(self.snapshot())
        yield
        settled(self.engine.dit.device)
        return (yield from snapshot_file.writing(header, tensors, path))

    def last_chunk(self) -> LightChunk:
        """What the last step adds to a light snapshot. Raises `SnapshotError` before the first."""
        last = snapshot.timeline_of(self._open().state).last
        if last is None:
            raise SnapshotError("no chunk has been made here")
        return snapshot_light.chunk_of(last)

    def reset(self, seed: int | None = None) -> None:
        """Back to the start picture and the first prompt; None keeps the seed.

        From here on it gives what a new session of that seed gives. A parked one stays parked; a
        recording begins anew.
        """
        self._open().state.begin_again(seed)

    def recording(self) -> Iterator[NDArray[np.uint8]]:
        """The frames of every chunk so far, uint8 `F H W 3`, decoded anew by the full decoder.

        For sessions started with `keep_latents`; others raise `ConfigError`. With `--decoder full`
        these are the frames that were shown, bit for bit.
        """
        engine, state = self._open()
        if state.film is None:
            raise ConfigError("this session has kept no latents", expected="keep_latents=True")
        vae = engine.vae.full if isinstance(engine.vae, PreviewVae) else engine.vae
        return state.film.decode(vae, engine.dit.device, engine.lane)

    def close(self) -> None:
        """Drop everything this session holds; calling it again does no harm."""
        if self._live is not None:
            engine, state = self._live
            state.caches.clear()
            engine.workspace.clear()
            if not state.parked:
                engine.rings.give(state.kv)
            engine.ledger.close(state.session_id)
            engine.sessions.discard(self)
        self._live = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Live:
        if self._live is None:
            raise SessionClosedError("this session is closed")
        return self._live


def _outlet(
    engine: Engine,
    aborted: Callable[[], bool] | None,
    on_frames: Callable[[Decoded], None] | None,
) -> Outlet:
    """Of one chunk, which all ranks of a group give up together."""
    agree = engine.shards.group.agree
    return Outlet(aborted=aborted, on_frames=on_frames, pace=engine.lane.pace, agree=agree)
