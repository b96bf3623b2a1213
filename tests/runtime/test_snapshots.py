"""Going back, and trying the other way: every bit is as it was, at every boundary of a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import AbortedError, OtherWeightsError, SnapshotError
from worldline.models.lingbot.dit import TimeTables
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.paged_ring import needed_frames
from worldline.runtime.passes import ChunkInputs, Passes
from worldline.runtime.session import Session
from worldline.runtime.shared import Engine

ROOM = 3_000_000  # bytes: some moments and all records
WALKS: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
OTHER: list[Controls] = [[("a", "j")] * 3, [("d",), ("d",), ("i",)]]
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},  # a window of 7: the ring wraps in the third chunk
    "int8": {"options": EngineOptions(kv="8bit")},
    "growing": {"window": -1, "sink": 0},
    "recached": {"options": EngineOptions(recache=True)},
    "reanchored": {"reanchor_at": 9},
    "still": {"options": EngineOptions(lossy=("still_window=5",))},
    "sink moved": {"options": EngineOptions(lossy=("sink_distance=10",))},
    "in order": {"without": ("ring_order",)},
}


def start(world: World, seed: int = 3) -> Session:
    return world.start(tiny.picture(), tiny.PROMPT, seed, steps=2)


def walk(
    session: Session, chunks: range, *, controls: Sequence[Controls] = WALKS
) -> list[NDArray[np.uint8]]:
    """Chunk after chunk, with a blend of prompts on the way."""
    made = []
    for i in chunks:
        assert session.next_chunk == i
        prompt = "a frozen lake at night" if i == 2 else None
        made.append(session.step(controls[i % len(controls)], prompt=prompt, blend_chunks=2).frames)
    return made


class Watched:
    """Passes that keep everything that goes in and out of each of them."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self.seen: list[Tensor] = []

    @property
    def eager(self) -> Passes:
        return self

    def camera(self, embedding: Tensor) -> Any:
        return self._passes.camera(embedding)

    def denoise(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> Tensor:
        flow = self._passes.denoise(x, time=time, inputs=inputs, kv=kv)
        self.seen += [x.clone(), flow.clone(), *self._ring(kv)]
        return flow

    def commit(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> None:
        self._passes.commit(x, time=time, inputs=inputs, kv=kv)
        self.seen += [x.clone(), *self._ring(kv)]

    def forget(self, kv: FrameRing) -> None:
        self._passes.forget(kv)

    def _ring(self, kv: FrameRing) -> Iterator[Tensor]:
        """Keys and values that can be attended to."""
        for layer in range(kv.params.layers):
            yield from (part.clone() for part in kv.restore(layer, kv.visible_tokens))


def watch(world: World) -> Watched:
    """From now on everything is seen."""
    passes = Watched(world.shared.passes)
    world.shared = world.shared._replace(passes=passes)
    return passes


def same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(
        torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("name", WORLDS)
def test_five_chunks_again_are_the_same_at_every_pass(name: str) -> None:
    """Across the ring's wrap, a blend, and whatever else this world does on its way."""
    world = tiny.world(**WORLDS[name])
    passes = watch(world)
    with start(world) as session:
        walk(session, range(1))
        kept = session.snapshot()
        passes.seen.clear()
        first, seen = walk(session, range(1, 6)), list(passes.seen)
        for parked in (False, True):
            if parked:
                session.park()
            session.restore(kept)
            assert session.parked == parked and session.next_chunk == 1
            passes.seen.clear()
            again = walk(session, range(1, 6))
            assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
            assert same(seen, passes.seen)
    if name == "reanchored":
        assert session is not None


@pytest.mark.parametrize("name", WORLDS)
def test_rewinding_anywhere_gives_every_bit_back(name: str) -> None:
    """To moments, and between them by context passes: there is room for some of them only."""
    options = WORLDS[name].get("options", EngineOptions())
    world = tiny.world(**WORLDS[name] | {"options": options})
    world.shared = world.shared._replace(timeline_bytes=ROOM)
    with start(world) as session:
        plain = walk(session, range(8))
        timeline = session.state.timeline
        assert timeline is not None and 0 < len(timeline.moments) < 7
        assert timeline.moment_bytes + timeline.record_bytes <= timeline.limit
        for chunk in (5, 4, 0, 3):
            while session.next_chunk < 8:
                walk(session, range(session.next_chunk, session.next_chunk + 1))
            assert session.rewind(chunk=chunk) == session.next_chunk == chunk
            again = walk(session, range(chunk, 8))
            assert all(np.array_equal(a, b) for a, b in zip(plain[chunk:], again, strict=True))
