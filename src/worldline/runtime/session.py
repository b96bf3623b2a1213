"""One live world: a thin shell around its `SessionState` that steps it chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.camera import scale_intrinsics
from worldline.core.chunk import Chunk, Decoded
from worldline.core.errors import ConfigError, SessionClosedError
from worldline.models.wan.tiny import PreviewVae
from worldline.runtime import conditions, first_chunk, parking, pipeline
from worldline.runtime.conditions import Controls
from worldline.runtime.outlet import Outlet
from worldline.runtime.shared import Engine
from worldline.runtime.state import SessionState


class _Live(NamedTuple):
    engine: Engine
    state: SessionState


class Session:
    """One live world. Not thread-safe: the worker's one thread steps all sessions."""

    def __init__(self, engine: Engine, state: SessionState) -> None:
        self._live: _Live | None = _Live(engine, state)
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
        `ConfigError`, `AbortedError`, `SessionClosedError`; after an error the session is as it
        was, and the same chunk can be asked for again.
        """
        engine, state = self._open()
        self.unpark()
        clock = engine.clock()
        outlet = Outlet(
            aborted=aborted,
            on_frames=on_frames,
            pace=engine.lane.pace,
            agree=engine.shards.group.agree,
        )
        before, start, index = state.prompt, state.start, state.next_chunk
        if prompt is not None:
            with clock.stage("conditions"):
                text = engine.text(prompt)
                state.prompt = conditions.switch_prompt(before, text, blend_chunks)
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
        """Between two chunks: encode what the next one needs of the picture, keep the first one."""
        engine, state = self._open()
        if state.parked:
            return
        start = state.next_frame
        pipeline.picture_condition(engine, state, range(start, start + self.chunk))
        first_chunk.remember(engine, state)

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
        return state.film.decode(vae, engine.dit.device)

    def close(self) -> None:
        """Drop everything this session holds; calling it again does no harm."""
        if self._live is not None:
            engine, state = self._live
            state.caches.clear()
            engine.workspace.clear()
            if not state.parked:
                engine.rings.give(state.kv)
            engine.ledger.close(state.session_id)
        self._live = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Live:
        if self._live is None:
            raise SessionClosedError("this session is closed")
        return self._live
