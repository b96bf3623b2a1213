"""The shipped weights in chunks of three with window 7 and sink 2: the ring wraps unevenly.

The oracle keeps keys and values in a plain list per frame and evicts as the official code does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import worldline
from worldline.core.config import EngineOptions
from worldline.core.errors import WorldlineError
from worldline.models.pocket import params
from worldline.ops.attention import attention
from worldline.runtime.kv_cache import KVRing

GALLERY = Path(params.__file__).with_name("gallery")
WALK = ("w", "w", "wl", "l", "s", "d", "j")


class ListMemory(KVRing):
    """Frames in lists; sizes and the chunk's start come from the ring it stands in for."""

    def __init__(self, ring: KVRing) -> None:
        super().__init__(ring.params, dtype=torch.float32, device="cpu")
        self.held: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in ring.keys]
        self.chunk = range(0)

    def begin_chunk(self, start: int, frames: int, *, visible: Sequence[int] | None = None) -> None:
        assert visible is None
        self.chunk = range(start, start + frames)
        for held in self.held:  # drop the oldest after the sink until the chunk fits
            while len(held) + frames > self.params.window:
                del held[sorted(held)[self.params.sink]]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        count = self.params.tokens_per_frame
        for i, frame in enumerate(self.chunk):
            part = slice(i * count, (i + 1) * count)
            self.held[layer][frame] = k[:, part].clone(), v[:, part].clone()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.write(layer, k, v)
        held = self.held[layer]
        keys, values = (torch.cat([held[f][i] for f in sorted(held)], dim=1) for i in (0, 1))
        return attention(q, keys, values)


@pytest.fixture(scope="module")
def world() -> worldline.World:
    return worldline.load("pocket", device="cpu", options=EngineOptions(timeline_mb=0))


def _walk(world: worldline.World, *, listed: bool) -> list[np.ndarray]:
    entry = json.loads((GALLERY / "gallery.json").read_text())[0]
    picture = np.array(Image.open(GALLERY / entry["file"]).convert("RGB"))
    with world.start(picture, entry["prompt"], seed=5, chunk=3, window=7, sink=2) as session:
        assert (session.chunk, session.window, session.sink) == (3, 7, 2)
        if listed:
            ring = session.state.kv
            assert isinstance(ring, KVRing)
            session.state.kv = ListMemory(ring)
        chunks = []
        for i, key in enumerate(WALK):
            chunk = session.step([[*key], [*key], [*WALK[i - 1]]])
            assert len(chunk.frames) == (9 if i == 0 else 12)
            chunks.append(chunk.frames)
        return chunks


def test_uneven_roll_over_equals_a_plain_list(world: worldline.World) -> None:
    ring, plain = _walk(world, listed=False), _walk(world, listed=True)
    for i, (a, b) in enumerate(zip(ring, plain, strict=True)):
        # the order of keys differs, so rounding does; it must not grow into something visible
        assert np.abs(a.astype(int) - b).max() <= 2, f"chunk {i}"
        assert a.std() > 8, "a picture, not a flat field"


def test_a_chunk_that_does_not_fit_the_window_is_refused(world: worldline.World) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    with pytest.raises(WorldlineError, match="window"):
        world.start(picture, "snow", chunk=6, window=7, sink=2)
