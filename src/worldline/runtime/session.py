"""One live world: a thin shell around its `SessionState` that steps it chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.chunk import Chunk
from worldline.core.errors import ConfigError, SessionClosedError
from worldline.models.wan.tiny import PreviewVae
from worldline.runtime import conditions, first_chunk, pipeline
from worldline.runtime.conditions import Controls
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

    @torch.no_grad()
    def step(
        self, controls: Controls = None, *, prompt: str | None = None, blend_chunks: int = 0
    ) -> Chunk:
        """Generate the next chunk.

        `controls` is one collection of action letters per latent frame, or framewise relative poses
        `[T, 4, 4]`, or None to stand still. A `prompt` takes over from this chunk on, at once or
        blended over `blend_chunks` chunks. Raises `ControlError`, `PromptError`,
        `SessionClosedError`; after an error the same chunk can be asked for again.
        """
        engine, state = self._open()
        clock = engine.clock()
        before = state.prompt
        if prompt is not None:
            with clock.stage("conditions"):
                text = engine.text(prompt)
                state.prompt = conditions.switch_prompt(before, text, blend_chunks)
            state.start = None  # no longer an ordinary one
        index = state.next_chunk
        try:
            video = pipeline.next_chunk(engine, state, controls, clock).video
        except BaseException:
            state.prompt = before
            raise
        with clock.stage("transfer"):
            frames = engine.lane.fetch(video)
        return Chunk(index, frames, clock.timings())

    @torch.no_grad()
    def prepare(self) -> None:
        """Between two chunks: encode what the next one needs of the picture, keep the first one."""
        engine, state = self._open()
        start = state.next_frame
        pipeline.picture_condition(engine, state, range(start, start + self.chunk))
        first_chunk.remember(engine, state)

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
            self._live.state.caches.clear()
            self._live.engine.workspace.clear()
            self._live.engine.rings.give(self._live.state.kv)
        self._live = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Live:
        if self._live is None:
            raise SessionClosedError("this session is closed")
        return self._live
