"""A session that waits leaves the device: its state goes to host memory and comes back by value.

What moves is everything that cannot be made again: the frames of the ring that the next chunk
attends to, the decoder's and the encoder's history, the encoded picture, the text in force, clean
latents where they are kept. What is computed from that (tables, rays, projected text) is dropped
and computed again. Frames are copied as pages (`pages`): those that a moment of the timeline, or
another branch, has already are not copied once more. A ring comes from the pool and goes back
there, so a session may return into another one: graphs that hold addresses serve on.
"""

from __future__ import annotations

from collections.abc import Iterator

from worldline.runtime import first_chunk
from worldline.runtime.assembly import take_ring
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.moment import HOST, moved, moved_decoder, settle, taking, values_of
from worldline.runtime.paged_ring import PagedRing
from worldline.runtime.shared import Engine
from worldline.runtime.state import SessionState
from worldline.runtime.tree import tensors_of


def parking(engine: Engine, state: SessionState) -> Iterator[None]:
    """Move a session to host memory, piece by piece, if it is not there.

    Until the last piece it is on the device as it was; what fails or is not finished leaves it
    there. It must not be stepped meanwhile.
    """
    if state.parked:
        return
    first_chunk.remember(engine, state)
    moment = yield from taking(engine, state)
    values, decoder = moved(moment.values, HOST), moved(moment.decoder, HOST)
    state.caches.clear()
    left = state.kv
    state.kv = PagedRing(left.params, left.dtype, pages=moment.pages, end=moment.end)
    settle(state, values, decoder)
    state.parked = True
    engine.rings.give(left)
    engine.ledger.park(state.session_id, bytes_there(state))


def unparking(engine: Engine, state: SessionState) -> Iterator[None]:
    """Move a session back, piece by piece, if it is not there.

    What fails or is not finished leaves it parked. Raises `CapacityError` where others have taken
    its place.
    """
    if not state.parked:
        return
    assert isinstance(state.kv, PagedRing), "a parked session has pages"
    device, there = engine.dit.device, engine.ledger.bytes_of(state.session_id)
    engine.ledger.unpark(state.session_id)
    ring: FrameRing | None = None
    try:
        ring = take_ring(engine, state.geometry, state.settings)
        yield from ring.taking(state.kv.pages, state.next_frame)
        values = moved(values_of(state), device)
        decoder = moved_decoder(engine, state.decoder, device)
    except BaseException:
        if ring is not None:
            engine.rings.give(ring)
        engine.ledger.park(state.session_id, there)
        raise
    state.kv = ring
    settle(state, values, decoder)
    state.parked = False


def bytes_there(state: SessionState) -> dict[int, int]:
    """What a parked session takes of the host, by tensor: several may hold the same."""
    values = (values_of(state), state.decoder)
    return {id(t): t.nbytes for t in (*state.kv.buffers(), *tensors_of(values))}
