"""A session that waits leaves the device: its state goes to host memory and comes back by value.

What moves is everything that cannot be made again: keys and values, the decoder's and the encoder's
history, the encoded picture, the text in force, clean latents where they are kept. What is computed
from that (tables, rays, projected text) is dropped and computed again. A ring comes from the pool
and goes back there, so a session may return into another one: graphs that hold addresses serve on.
On a CPU the host's memory is the device's; the move is then a copy, and the ring is given back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from worldline.ops.vae import StreamState
from worldline.runtime import first_chunk
from worldline.runtime.assembly import take_ring
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.replay import Past
from worldline.runtime.shared import Engine
from worldline.runtime.state import ImageCondition, Origin, PromptStates, SessionState
from worldline.runtime.tree import map_tensors, tensors_of

T = TypeVar("T")
HOST = torch.device("cpu")


class _Kept(NamedTuple):
    """All tensors of a session but the ring's and the decoder's; some are the same ones."""

    image: ImageCondition
    prompt: PromptStates
    origin: Origin
    past: tuple[Past, ...]


def parking(engine: Engine, state: SessionState) -> Iterator[None]:
    """Move a session to host memory, piece by piece, if it is not there.

    Until the last piece it is on the device as it was; what fails or is not finished leaves it
    there. It must not be stepped meanwhile.
    """
    if state.parked:
        return
    first_chunk.remember(engine, state)
    ring = state.kv.twin(HOST)
    yield from ring.copying(state.kv)
    engine.lane.join()  # the decoder's history was made in a stream of its own
    kept, decoder = _moved(_kept(state), HOST), _moved(state.decoder, HOST)
    state.caches.clear()
    left, state.kv = state.kv, ring
    _settle(state, kept, decoder)
    state.parked = True
    engine.rings.give(left)
    tensors = {id(tensor): tensor.nbytes for tensor in tensors_of((kept, decoder))}
    engine.ledger.park(state.session_id, ring.nbytes + sum(tensors.values()))


def unparking(engine: Engine, state: SessionState) -> Iterator[None]:
    """Move a session back, piece by piece, if it is not there.

    What fails or is not finished leaves it parked. Raises `CapacityError` where others have taken
    its place.
    """
    if not state.parked:
        return
    device, there = engine.dit.device, engine.ledger.bytes_of(state.session_id)
    engine.ledger.unpark(state.session_id)
    ring: FrameRing | None = None
    try:
        ring = take_ring(engine, state.geometry, state.settings)
        yield from ring.copying(state.kv)
        kept = _moved(_kept(state), device)
        with engine.lane.decoding(kept.image.picture):  # the decoder's stream is to own its history
            decoder = _moved(state.decoder, device)
    except BaseException:
        if ring is not None:
            engine.rings.give(ring)
        engine.ledger.park(state.session_id, there)
        raise
    state.kv = ring
    _settle(state, kept, decoder)
    state.parked = False


def _kept(state: SessionState) -> _Kept:
    return _Kept(state.image, state.prompt, state.origin, tuple(state.past or ()))


def _settle(state: SessionState, kept: _Kept, decoder: StreamState | None) -> None:
    state.image, state.prompt, state.origin = kept.image, kept.prompt, kept.origin
    if state.past is not None:
        state.past.replace(kept.past)
    state.decoder = decoder


def _moved(value: T, device: torch.device) -> T:
    """A copy on `device`; what was one tensor, or one prompt, is one again."""
    known: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = tensor.to(device, copy=True)
        return known[id(tensor)]

    return map_tensors(value, move)
