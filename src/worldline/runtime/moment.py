"""A session between two chunks, bit for bit: to be gone back to, branched from, written to disk.

Frames of the ring are pages, shared with whoever holds the same bits (`pages`). All else that a
session has is only ever replaced, never written into, so a moment holds the very same tensors;
what lies on a GPU and changes with every chunk comes to the host.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from worldline.core.camera import CameraState
from worldline.ops.vae import StreamState
from worldline.runtime.noise import NoiseSource
from worldline.runtime.paged_ring import PagedRing, needed_frames
from worldline.runtime.pages import Page
from worldline.runtime.replay import Past
from worldline.runtime.shared import Engine
from worldline.runtime.state import ImageCondition, Origin, PromptStates, SessionState
from worldline.runtime.transfer import download
from worldline.runtime.travels import at_once
from worldline.runtime.tree import map_tensors, tensors_of

T = TypeVar("T")
HOST = torch.device("cpu")


class Values(NamedTuple):
    """All tensors of a session but the ring's and the decoder's; some are the same ones."""

    image: ImageCondition
    prompt: PromptStates
    origin: Origin
    past: tuple[Past, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Moment:
    """See the module's contract; `keys` are those of the caches that stood, by name."""

    next_chunk: int
    anchor: int
    sink_shift: int
    camera: CameraState
    noise: NoiseSource
    start: bytes | None
    values: Values
    decoder: StreamState | None
    pages: tuple[Page, ...]
    end: int  # latent frames
    keys: Mapping[str, Hashable]

    @property
    def nbytes(self) -> int:
        """Bytes of everything it holds, shared or not."""
        return sum(nbytes for _, nbytes in self.parts())

    def parts(self) -> Iterator[tuple[int, int]]:
        """Everything it holds, each thing once: what tells it from others, and its bytes."""
        for page in self.pages:
            yield id(page), page.nbytes
        others = {id(t): t for t in tensors_of((self.values, self.decoder))}
        for name, tensor in others.items():
            yield name, tensor.untyped_storage().nbytes()


def values_of(state: SessionState) -> Values:
    """What a session holds now; the encoded picture may still grow."""
    return Values(replace(state.image), state.prompt, state.origin, tuple(state.past or ()))


def taking(engine: Engine, state: SessionState) -> Generator[None, None, Moment]:
    """Take the moment in which a session stands, page by page; it must not be stepped meanwhile."""
    pages: list[Page] = []
    for frame in needed_frames(state.kv, state.next_frame, state.settings.chunk):
        pages.append(state.kv.page(frame))
        yield
    decoder = state.decoder
    if not state.parked:
        engine.lane.join()  # it was made in a stream of its own
        decoder = map_tensors(decoder, _on_its_own)
    return Moment(
        next_chunk=state.next_chunk,
        anchor=state.anchor,
        sink_shift=state.sink_shift,
        camera=state.camera,
        noise=state.noise,
        start=state.start,
        values=values_of(state),
        decoder=decoder,
        pages=tuple(pages),
        end=state.next_frame,
        keys=state.caches.keys,
    )


def _on_its_own(tensor: Tensor) -> Tensor:
    """The tensor on the host; a part of something larger does not keep all of that alive."""
    alone = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if alone and tensor.device == HOST else download(tensor)


def take(engine: Engine, state: SessionState) -> Moment:
    """`taking`, all at once."""
    return at_once(taking(engine, state))


def bytes_to_take(state: SessionState) -> int:
    """What `take` would copy, at most; known before it does."""
    frames = needed_frames(state.kv, state.next_frame, state.settings.chunk)
    new = sum(state.kv.written(frame).page is None for frame in frames)
    return new * state.kv.page_bytes + sum(t.nbytes for t in tensors_of(state.decoder))


def standing(engine: Engine, state: SessionState, moment: Moment) -> Iterator[None]:
    """Let a session stand where `moment` was taken, page by page; a parked one stays away.

    Film and timeline are the caller's.
    """
    if state.parked:
        kv = state.kv
        state.kv = PagedRing(kv.params, kv.dtype, pages=moment.pages, end=moment.end)
    else:
        yield from state.kv.taking(moment.pages, moment.end)
    device = HOST if state.parked else engine.dit.device
    settle(state, moved(moment.values, device), moved_decoder(engine, moment.decoder, device))
    state.next_chunk, state.anchor = moment.next_chunk, moment.anchor
    state.sink_shift, state.camera = moment.sink_shift, moment.camera
    state.noise, state.start, state.opening = moment.noise, moment.start, None
    state.caches.keep(moment.keys)
    engine.workspace.clear()


def settle(state: SessionState, values: Values, decoder: StreamState | None) -> None:
    """Let a session hold these tensors."""
    state.image, state.prompt, state.origin = values.image, values.prompt, values.origin
    if state.past is not None:
        state.past.replace(values.past)
    state.decoder = decoder


def moved(value: T, device: torch.device) -> T:
    """The same on `device`; what was one tensor, or one prompt, is one again."""
    known: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = tensor.to(device)
        return known[id(tensor)]

    return map_tensors(value, move)


def moved_decoder(
    engine: Engine, decoder: StreamState | None, device: torch.device
) -> StreamState | None:
    """A decoder's history on `device`; there its own stream owns it."""
    if device == HOST or engine.dit.device == HOST:
        return moved(decoder, device)
    with engine.lane.decoding(torch.empty(0, device=device)):
        return moved(decoder, device)
