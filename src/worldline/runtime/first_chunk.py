"""First chunks of equal starts, kept on the host: a popular start picture opens at once.

What the first chunk of a session depends on is known when it begins: picture, prompt, seed, sizes,
settings, model, weights and mode, and the controls. All of it goes into the key, and what the chunk
left in the session (keys and values, decoder, encoded picture) comes back by value, so that every
later chunk has the bits it would have had. Least recently used starts leave first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from worldline.models.lingbot.params import ACTION_CHANNELS
from worldline.ops.vae import StreamState
from worldline.runtime.transfer import download
from worldline.runtime.tree import map_tensors, tensors_of

if TYPE_CHECKING:
    from worldline.runtime.conditions import Moved
    from worldline.runtime.shared import Engine
    from worldline.runtime.state import SessionState


class Generated(NamedTuple):
    """A chunk as it leaves the networks: clean latents `[1, 16, T, h, w]`, video in [-1, 1].

    `host` are the latents there; they have arrived when the frames have.
    """

    latents: Tensor
    video: Tensor  # 1 3 F H W
    decoder: StreamState | None = None
    host: Tensor | None = None


class Opening(NamedTuple):
    """A first chunk that a session has just generated, and the key of what it depended on."""

    key: bytes
    generated: Generated


class Kept(NamedTuple):
    """A first chunk and all that it left behind; every tensor on the host and of our own."""

    generated: Generated
    ring: list[Tensor]
    picture: Tensor
    encoder: StreamState | None

    @property
    def nbytes(self) -> int:
        """Bytes of everything kept."""
        return sum(tensor.nbytes for tensor in tensors_of(self))


class FirstChunks:
    """At most `limit` bytes of them; `recalled` counts how often one was used."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.nbytes = 0
        self.recalled = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    @property
    def on(self) -> bool:
        """Whether anything is kept at all."""
        return self._limit > 0

    def get(self, key: bytes) -> Kept | None:
        """What is kept under `key`; not to be written into."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self.recalled += 1
        return kept

    def has_room(self, nbytes: int) -> bool:
        """Whether so much can be kept if everything else leaves."""
        return nbytes <= self._limit

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep it, at the price of others; see `has_room`."""
        assert self.has_room(kept.nbytes) and key not in self._kept
        self._kept[key] = kept
        self.nbytes += kept.nbytes
        while self.nbytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes


def start_digest(parts: Iterable[object]) -> bytes:
    """One digest of everything a session begins with; parts are told apart by their `repr`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def key_of(engine: Engine, state: SessionState, motion: Moved) -> bytes | None:
    """Key of the chunk that comes next; None where it is not an ordinary first one."""
    if state.start is None or state.next_chunk != 0 or not engine.first_chunks.on:
        return None
    acts = engine.dit.params.control_dim == ACTION_CHANNELS  # else keys do not reach the network
    keys = motion.keys.tobytes() if acts else b""
    return start_digest([state.start, motion.relative.tobytes(), keys])


def recall(engine: Engine, state: SessionState, key: bytes | None) -> Generated | None:
    """The chunk that comes next, if it is kept: ring and picture are as it would leave them."""
    kept = None if key is None else engine.first_chunks.get(key)
    if kept is None:
        return None
    device = engine.dit.device

    def onto(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True, copy=True)

    state.kv.put(range(state.settings.chunk), kept.ring)
    state.image.latents, state.image.encoder = onto(kept.picture), map_tensors(kept.encoder, onto)
    host, video, decoder, _ = kept.generated
    latents = onto(host)
    with engine.lane.decoding(latents):  # frames are fetched where decoded ones are
        return Generated(latents, *map_tensors((video, decoder), onto), host)


def remember(engine: Engine, state: SessionState) -> None:
    """Keep the first chunk that a session has just generated; else nothing.

    Not while it is generated, but when nobody waits for the copy to the host.
    """
    opening, state.opening = state.opening, None
    if opening is None or opening.key in engine.first_chunks:
        return
    assert state.image.latents is not None, "the first chunk encodes the picture"
    engine.lane.join()
    ring = state.kv.take(range(state.settings.chunk))
    kept = Kept(opening.generated, ring, state.image.latents, state.image.encoder)
    if engine.first_chunks.has_room(kept.nbytes):
        engine.first_chunks.put(opening.key, map_tensors(kept, download))
