"""History made again from clean latents: context passes over chunks that were generated before.

The reference for the live ring: run from the first chunk on, with the same texts, controls and
origins of time, it leaves the same bits. At a change of prompt it can also be used to make the
window's history anew under the new text (`--recache`): the sink is kept, and every later chunk
attends only to what it may know, the sink and what was rebuilt before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from worldline.runtime.conditions import Moved
from worldline.runtime.inputs import chunk_inputs, commit, model_input, picture_condition, turns
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState


class Past(NamedTuple):
    """A chunk as it was committed: clean latents `[1, 16, T, h, w]`, and what its passes took."""

    frames: range
    latents: Tensor
    motion: Moved
    prompt: PromptStates
    anchor: int

    def only(self, frames: Collection[int]) -> Past | None:
        """The part that lies in `frames`, which are without a gap; None where there is none."""
        inside = [i for i, frame in enumerate(self.frames) if frame in frames]
        if not inside:
            return None
        part = slice(inside[0], inside[-1] + 1)
        motion = self.motion._replace(
            relative=self.motion.relative[part],
            keys=self.motion.keys[part],
            path=self.motion.path[part],
        )
        return self._replace(
            frames=self.frames[part], latents=self.latents[:, :, part], motion=motion
        )


class History:
    """Chunks of one session, oldest first: those of which the ring holds a frame, or all."""

    def __init__(self, *, everything: bool = False) -> None:
        self._everything = everything
        self._chunks: list[Past] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Past]:
        return iter(self._chunks)

    def keep(self, past: Past, held: Sequence[int]) -> None:
        """Add a chunk; forget those of which the ring does not hold any of its frames `held`."""
        known = set(held)
        self._chunks.append(past)
        if not self._everything:
            self._chunks = [p for p in self._chunks if not known.isdisjoint(p.frames)]

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks = []

    def replace(self, chunks: Iterable[Past]) -> None:
        """Hold these chunks instead, the same ones on another device."""
        self._chunks = list(chunks)

    def rename(self, prompt: PromptStates, first: int) -> None:
        """From latent frame `first` on, the ring now holds what `prompt` makes of the chunks."""
        self._chunks = [
            p._replace(prompt=prompt) if p.frames.stop > first else p for p in self._chunks
        ]


def replay(engine: Engine, state: SessionState, pasts: Iterable[Past]) -> None:
    """Commit chunks, from the first one on, into a ring that is empty, as they once were."""
    for past in pasts:
        if past.anchor != state.anchor:
            state.kv.turn(turns(engine.dit, [state.anchor - past.anchor], 1, 1))
            state.anchor = past.anchor
        state.kv.begin_chunk(past.frames.start, len(past.frames))
        commit_past(engine, state, past, past.prompt)


def is_due(state: SessionState, prompt: PromptStates) -> bool:
    """Whether `prompt` has arrived at another text than the window's history was made under."""
    last = list(state.past or ())[-1:]
    blending = prompt.blended < prompt.blend_chunks
    return bool(last) and not blending and last[0].prompt.current is not prompt.current


def recache(engine: Engine, state: SessionState, prompt: PromptStates) -> None:
    """Make the window's history anew where that is due; else nothing.

    Doing it again gives the same: only the sink, the latents and the text go in. Should it fail on
    the way, or the chunk after it, the next chunk makes the history anew under its own prompt.
    """
    if not is_due(state, prompt):
        return
    assert state.past is not None
    held, sink = state.kv.present_frames(state.next_frame), max(state.settings.sink, 0)
    kept = [frame for frame in held if frame < sink]
    recent = set(held) - set(kept)
    known = kept
    pasts = list(state.past)
    state.past.rename(prompt, sink)  # before the first write: a ring half made belongs to no text
    for past in pasts:
        part = past.only(recent)
        if part is not None:
            known = [*known, *part.frames]
            state.kv.begin_chunk(part.frames.start, len(part.frames), visible=known)
            commit_past(engine, state, part, prompt)


def commit_past(engine: Engine, state: SessionState, past: Past, prompt: PromptStates) -> None:
    """Context pass over a chunk of the past, at which the ring is aimed, under `prompt`."""
    once = engine._replace(passes=engine.passes.eager)  # its shapes are not worth a graph
    condition = picture_condition(once, state, past.frames)
    inputs = chunk_inputs(once, state, past.motion, prompt=prompt, frames=past.frames)
    commit(once, state, past.latents, fill=model_input(once, condition), inputs=inputs)
    engine.workspace.clear()
