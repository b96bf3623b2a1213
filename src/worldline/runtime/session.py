"""One live world: a thin shell around its `SessionState` that steps it chunk by chunk."""

from __future__ import annotations

from typing import NamedTuple

import torch

from worldline.core.chunk import Chunk
from worldline.core.errors import SessionClosedError
from worldline.ops.image import to_uint8
from worldline.runtime import conditions, pipeline
from worldline.runtime.conditions import Controls
from worldline.runtime.pipeline import Engine
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
        index = state.next_chunk
        try:
            video = pipeline.next_chunk(engine, state, controls, clock).video
        except BaseException:
            state.prompt = before
            raise
        with clock.stage("transfer"):
            frames = to_uint8(video).cpu().numpy()
        return Chunk(index, frames, clock.timings())

    @torch.no_grad()
    def prepare(self) -> None:
        """Encode what the next chunk needs of the picture, ahead of time, between two chunks."""
        engine, state = self._open()
        start = state.next_frame
        pipeline.picture_condition(engine, state, range(start, start + self.chunk))

    def close(self) -> None:
        """Drop everything this session holds; calling it again does no harm."""
        if self._live is not None:
            self._live.state.caches.clear()
            self._live.engine.workspace.clear()
        self._live = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Live:
        if self._live is None:
            raise SessionClosedError("this session is closed")
        return self._live
