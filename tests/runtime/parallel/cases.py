"""Small worlds of many heads, the same on every rank, and what walking through them leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tests import tiny
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket.params import PocketVAEParams
from worldline.models.pocket.vae import PocketVAE
from worldline.ops.collectives import ALONE, Collectives
from worldline.runtime.engine import World
from worldline.runtime.loader import Components
from worldline.runtime.session import Session

HEADS = 12
WALK = (("w",), ("w", "d"), ())


class Size(NamedTuple):
    """Pixels, and latent frames of a chunk."""

    width: int
    height: int
    chunk: int

    @property
    def tokens(self) -> int:
        """Tokens of a chunk."""
        return self.chunk * (self.width // 16) * (self.height // 16)


class Walked(NamedTuple):
    """Clean latents of every chunk, and the frames of the last."""

    latents: list[Tensor]
    frames: NDArray[np.uint8]


def dit_params() -> DiTParams:
    """As `tiny.dit_params`, but twelve heads of eight."""
    return msgspec.structs.replace(tiny.dit_params(), dim=96, num_heads=HEADS)


def components(*, published: bool = False) -> Components:
    """Networks of the tiny world of twelve heads.

    Unless it has the `published` class, the autoencoder is one of few layers: it has columns and a
    history too, and where a test is about something else its halos would be most of the work.
    """
    made = tiny.world(dit=dit_params()).components
    if published:
        return made
    params = PocketVAEParams(latent_channels=16, encoder=(8, 8), decoder=(8, 8, 8), blocks=1)
    vae = PocketVAE(params)
    tiny.build(vae, 1)
    return dataclasses.replace(made, vae=vae)


def world(
    group: Collectives = ALONE,
    *,
    published: bool = False,
    options: EngineOptions = DEFAULT_OPTIONS,
    without: Collection[str] = (),
    reanchor_at: int = 1024,
) -> World:
    """The tiny world of twelve heads, as a rank of `group`."""
    made = components(published=published)
    return World(made, options=options, without=without, reanchor_at=reanchor_at, group=group)


def begin(world: World, size: Size, *, sharded: bool = True, window: int | None = None) -> Session:
    """A session of that size with a sink of two latent frames; a window that is soon full."""
    return world.start(
        tiny.picture(),
        tiny.PROMPT,
        7,
        width=size.width,
        height=size.height,
        chunk=size.chunk,
        window=window or (7 if size.chunk > 1 else 4),
        sink=2,
        keep_latents=True,
        sharded=sharded,
    )


class Variant(NamedTuple):
    """A way to run a world."""

    options: EngineOptions = DEFAULT_OPTIONS
    without: Collection[str] = ()
    reanchor_at: int = 1024
    window: int | None = None

    def begin(self, size: Size, group: Collectives = ALONE) -> Session:
        """A session on a world of its own."""
        made = world(
            group, options=self.options, without=self.without, reanchor_at=self.reanchor_at
        )
        return begin(made, size, window=self.window)


def walk(session: Session, chunks: int, *, start: int = 0) -> Walked:
    """Walk so many chunks from chunk `start` on; the text changes at the third of a walk."""
    frames = np.zeros(0, dtype=np.uint8)
    for chunk in range(start, start + chunks):
        controls = [WALK[(chunk + i) % len(WALK)] for i in range(session.chunk)]
        prompt = "a dark forest of pines" if chunk == 2 else None
        frames = session.step(controls, prompt=prompt).frames
    film = session.state.film
    assert film is not None
    return Walked(list(film), frames)


def farthest(one: Walked, other: Walked) -> float:
    """The largest difference between the latents of two walks."""
    pairs = zip(one.latents, other.latents, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)
