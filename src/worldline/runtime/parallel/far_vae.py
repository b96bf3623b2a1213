"""An autoencoder on a rank of its own, as the ranks of the transformer see it.

What is to be decoded is posted and not waited for: the other rank works while the context pass and
the next chunk's passes run here. Its pictures come to the host of rank 0 as bytes, and are waited
for where they are fetched (`FarLane`). Latents of the start picture come to every rank. Histories
stay where they are made; here a session holds a key to each, and the other rank drops what nobody
holds a key to. `vae_rank` is the other end.

Messages go from host to host and never wait for a GPU's collectives.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from worldline.core.errors import ShapeError
from worldline.models.wan.tiny import PreviewVae
from worldline.ops.vae import StreamingVae, StreamState
from worldline.runtime import protocol
from worldline.runtime.first_chunk import FirstChunks
from worldline.runtime.lane import Lane
from worldline.runtime.parallel.group import Group, Sending
from worldline.runtime.parallel.vae import CELL, whole_vae
from worldline.runtime.protocol import ErrorReply
from worldline.runtime.shared import Engine

if TYPE_CHECKING:
    from worldline.runtime.engine import World

LATENT_CHANNELS = 16
HEAD = 8  # numbers before what is sent: what to do, two keys, a shape of five
STATUS = 4096  # bytes that say how it went: none but zeros, or an error
NO_KEY = 0
UNDER_WAY = 32  # messages: those of a chunk that is shown latent frame by latent frame, and more


class Ask(IntEnum):
    """What the rank of the autoencoder is told."""

    ENCODE = 1
    DECODE = 2
    DROP = 3  # a history that nobody holds
    STOP = 4


class FarState:
    """A key to the history of a stream. Histories are values, so a copy is the key itself."""

    def __init__(self, key: int, drop: Callable[[int], None]) -> None:
        self.key = key
        weakref.finalize(self, drop, key).atexit = False

    def clone(self) -> FarState:
        """See `ops.vae.StreamState`."""
        return self


class FarVae:
    """See the module's contract; a `StreamingVae`. Every rank of the transformer makes one."""

    def __init__(self, like: StreamingVae, group: Group) -> None:
        """`like` is an equal autoencoder, whose weights are not needed.

        `group` has all ranks of the transformer, from 0, and then the autoencoder's.
        """
        self._like, self._group = like, group
        self._there = group.size - 1
        self._keys = itertools.count(NO_KEY + 1)
        self._dropped: deque[int] = deque()
        self._under_way: deque[Sending] = deque()
        self._coming = WeakIdKeyDictionary()  # what waits for the pictures, by their video

    @property
    def stationary_latent(self) -> int:
        """See `StreamingVae`."""
        return self._like.stationary_latent

    @property
    def frame_by_frame(self) -> bool:
        """See `StreamingVae`."""
        return self._like.frame_by_frame

    def encode_stream(self, video: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See `StreamingVae`; waits. Every rank asks, and is given the latents."""
        frames = _latent_frames(video, state)
        shape = (
            video.shape[0],
            LATENT_CHANNELS,
            frames,
            video.shape[3] // CELL,
            video.shape[4] // CELL,
        )
        key = self._ask(Ask.ENCODE, video, state)
        status, latents = self._reply(torch.empty(shape))
        _raise(status.wait())
        return latents.wait().to(video.device, video.dtype), self._state(key)

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See `StreamingVae`; does not wait. The video is zeros; `FarLane` has the pictures."""
        _check_latents(latents)
        count = 4 * latents.shape[2] - (3 if state is None else 0)
        height, width = (CELL * cells for cells in latents.shape[3:])
        key = self._ask(Ask.DECODE, latents, state)
        video = latents.new_zeros(1).expand(1, 3, count, height, width)
        if self._group.rank == 0:
            status, frames = self._reply(torch.empty(count, height, width, 3, dtype=torch.uint8))

            def wait() -> NDArray[np.uint8]:
                _raise(status.wait())
                return frames.wait().numpy()

            self._coming[video] = wait
        return video, self._state(key)

    def coming(self, video: Tensor) -> Callable[[], NDArray[np.uint8]] | None:
        """What waits for the pictures `F H W 3` that `video` stands for, once; None of others."""
        return self._coming.pop(video, None)

    def stop(self) -> None:
        """The other rank is needed no more."""
        if self._group.rank == 0:
            self._post(_head(Ask.STOP)).wait()

    def _ask(self, ask: Ask, x: Tensor, state: FarState | None) -> int:
        """Say what to do with `x` and the history of `state`; the key of the next history."""
        key = next(self._keys)
        self._tidy()
        if self._group.rank == 0:
            self._post(_head(ask, NO_KEY if state is None else state.key, key, x.shape))
            self._post(x.detach().to("cpu", torch.float32, copy=True).contiguous())
        return key

    def _reply(self, room: Tensor) -> tuple[Sending, Sending]:
        status = torch.empty(STATUS, dtype=torch.uint8)
        coming = self._group.expect(status, self._there), self._group.expect(room, self._there)
        self._under_way.extend(coming)
        return coming

    def _state(self, key: int) -> FarState:
        return FarState(key, self._dropped.append)

    def _tidy(self) -> None:
        """Forget histories that nobody holds, and messages that have long arrived; rank 0 tells."""
        while self._dropped:
            key = self._dropped.popleft()
            if self._group.rank == 0:
                self._post(_head(Ask.DROP, key))
        settle(self._under_way)

    def _post(self, tensor: Tensor) -> Sending:
        sending = self._group.post(tensor, self._there)
        self._under_way.append(sending)
        return sending


class FarLane:
    """A `Lane` whose pictures are made elsewhere; `inner` fetches all others."""

    queues = True

    def __init__(self, inner: Lane, vae: FarVae) -> None:
        self._inner, self._vae = inner, vae

    def decoding(self, latents: Tensor) -> AbstractContextManager[None]:
        """See `Lane`; nothing is computed here."""
        del latents
        return nullcontext()

    def fetching(self, video: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """See `Lane`."""
        return self._vae.coming(video) or self._inner.fetching(video)

    def fetch(self, video: Tensor) -> NDArray[np.uint8]:
        """See `Lane`."""
        return self.fetching(video)()

    def join(self) -> None:
        """See `Lane`."""
        self._inner.join()

    def pace(self) -> None:
        """See `Lane`."""
        self._inner.pace()


def settle(under_way: deque[Sending]) -> None:
    """Wait for all but the newest messages, which only then may be forgotten."""
    while len(under_way) > UNDER_WAY:
        under_way.popleft().wait()


def status_of(error: Exception | None) -> Tensor:
    """How it went, as bytes of a fixed number."""
    said = b"" if error is None else msgspec.msgpack.encode(protocol.error_to_reply(error))
    assert len(said) <= STATUS - 4, "errors are short"
    data = len(said).to_bytes(4, "little") + said
    return torch.frombuffer(bytearray(data.ljust(STATUS, b"\0")), dtype=torch.uint8)


def _raise(status: Tensor) -> None:
    data = status.numpy().tobytes()
    said = data[4 : 4 + int.from_bytes(data[:4], "little")]
    if said:
        raise protocol.reply_to_error(msgspec.msgpack.decode(said, type=ErrorReply))


def _head(ask: Ask, old: int = NO_KEY, new: int = NO_KEY, shape: tuple[int, ...] = ()) -> Tensor:
    numbers = [int(ask), old, new, *shape]
    return torch.tensor(numbers + [0] * (HEAD - len(numbers)), dtype=torch.int64)


def attach(world: World, group: Group) -> None:
    """From here on sessions of `world` have their autoencoder on the last rank of `group`."""
    world.shared = far(world.shared, group)


def far(engine: Engine, group: Group) -> Engine:
    """`engine`, with its autoencoder on the last rank of `group`."""
    preview = engine.vae if isinstance(engine.vae, PreviewVae) else None
    vae = FarVae(whole_vae(engine.vae if preview is None else preview.full), group)
    shown = vae if preview is None else PreviewVae(vae, preview.tiny)
    # A first chunk that is kept would keep a video of zeros.
    none = FirstChunks(0)
    return engine._replace(vae=shown, lane=FarLane(engine.lane, vae), first_chunks=none)


def _check_latents(latents: Tensor) -> None:
    fits = latents.ndim == 5 and latents.shape[:2] == (1, LATENT_CHANNELS)
    if not fits or 0 in latents.shape:
        expected = f"[1, {LATENT_CHANNELS}, f, h, w], none of them 0"
        raise ShapeError("cannot decode these latents", expected=expected, got=list(latents.shape))


def _latent_frames(video: Tensor, state: object) -> int:
    """How many latents the frames of `video` give. Raises ShapeError before anything is sent."""
    lead = 1 if state is None else 0
    fits = (
        video.ndim == 5
        and video.shape[2] % 4 == lead
        and not any(n % CELL for n in video.shape[3:])
    )
    if not fits or 0 in video.shape:
        expected = f"[B, 3, {lead}+4k, {CELL}·h, {CELL}·w]"
        raise ShapeError("cannot encode this video", expected=expected, got=list(video.shape))
    return (video.shape[2] - lead) // 4 + lead
