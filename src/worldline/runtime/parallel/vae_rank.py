"""The rank of its own that `far_vae` speaks with: encodes, decodes, and keeps the histories.

It does what rank 0 says, in that order, and answers what was asked even where that fails. Latents
go to every other rank, pictures to rank 0 alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from worldline.core.errors import SessionError
from worldline.ops.image import to_uint8
from worldline.ops.vae import StreamingVae
from worldline.runtime.device import preferred_dtype, resolve
from worldline.runtime.device import setup as setup_device
from worldline.runtime.loader import load_autoencoder
from worldline.runtime.parallel.far_vae import HEAD, LATENT_CHANNELS, NO_KEY, Ask, settle, status_of
from worldline.runtime.parallel.group import Group, Sending, split
from worldline.runtime.parallel.vae import CELL, ENCODING_RANK
from worldline.runtime.progress import NoStamps, Stamps
from worldline.runtime.protocol import WorkerSettings
from worldline.runtime.worker import passes_of


def passes(settings: WorkerSettings, whole: Group) -> Group | None:
    """The group of the ranks that run passes; every rank asks, None is said to the others."""
    device = resolve(settings.device_of(whole.rank))
    return split(whole, passes_of(settings), device=device)


def work(settings: WorkerSettings, whole: Group, stamps: Stamps) -> None:
    """Load the autoencoder and serve until rank 0 ends. Raises as `load_autoencoder` does."""
    device = setup_device(settings.device_of(whole.rank), settings.mode, settings.threads)
    passes(settings, whole)
    vae = load_autoencoder(
        settings.model,
        device=device,
        dtype=settings.dtype or preferred_dtype(device, settings.mode),
        mode=settings.mode,
        random_weights=settings.random_weights,
    )
    VaeRank(vae, whole, device=device, stamps=stamps).serve()


class VaeRank:
    """The last rank of `group`."""

    def __init__(
        self,
        vae: StreamingVae,
        group: Group,
        *,
        device: torch.device,
        stamps: Stamps | None = None,
    ) -> None:
        self._stamps = stamps or NoStamps()
        assert group.rank == group.size - 1, "the autoencoder has the last rank"
        self._vae, self._group, self._device = vae, group, device
        self._histories: dict[int, Any] = {}
        self._under_way: deque[Sending] = deque()

    def __len__(self) -> int:
        """Histories that are kept."""
        return len(self._histories)

    @torch.no_grad()
    def serve(self) -> None:
        """Do what is asked until rank 0 says stop. Raises `WorkerDiedError` when it is gone."""
        while True:
            self._stamps.wait()
            head = torch.empty(HEAD, dtype=torch.int64)
            ask, old, new, *shape = self._group.expect(head, ENCODING_RANK).wait().tolist()
            settle(self._under_way)
            if ask == Ask.STOP:
                return self._finish()
            if ask == Ask.DROP:
                self._histories.pop(old, None)
                continue
            self._stamps.begin("encode" if ask == Ask.ENCODE else "decode", (old == NO_KEY, *shape))
            x = self._group.expect(torch.empty(shape), ENCODING_RANK).wait().to(self._device)
            self._encode(x, old, new) if ask == Ask.ENCODE else self._decode(x, old, new)

    def _encode(self, video: Tensor, old: int, new: int) -> None:
        frames = (video.shape[2] - (old == NO_KEY)) // 4 + (old == NO_KEY)
        cells = (n // CELL for n in video.shape[3:])
        nothing = torch.zeros(video.shape[0], LATENT_CHANNELS, frames, *cells)
        encode = partial(self._advance, self._vae.encode_stream, video, old, new)
        status, latents = _tried(encode, nothing)
        for rank in range(self._group.size - 1):
            self._post(status, rank)
            self._post(latents.float().cpu().contiguous(), rank)

    def _decode(self, latents: Tensor, old: int, new: int) -> None:
        count = 4 * latents.shape[2] - (3 if old == NO_KEY else 0)
        size = (CELL * cells for cells in latents.shape[3:])
        nothing = torch.zeros(count, *size, 3, dtype=torch.uint8)
        decode = partial(self._advance, self._vae.decode_stream, latents, old, new)
        status, frames = _tried(lambda: to_uint8(decode()), nothing)
        self._post(status, ENCODING_RANK)
        self._post(frames.cpu(), ENCODING_RANK)

    def _advance(self, run: Callable[..., Any], x: Tensor, old: int, new: int) -> Tensor:
        """`run` on from the history `old`; what it leaves is `new`."""
        if old != NO_KEY and old not in self._histories:
            raise SessionError("the autoencoder has lost this stream", got=f"history {old}")
        out, self._histories[new] = run(x, self._histories.get(old))
        return out

    def _post(self, tensor: Tensor, to: int) -> None:
        self._under_way.append(self._group.post(tensor, to))

    def _finish(self) -> None:
        for sending in self._under_way:
            sending.wait()
        self._histories.clear()


def _tried(run: Callable[[], Tensor], nothing: Tensor) -> tuple[Tensor, Tensor]:
    """What `run` gives and how it went: one that fails gives `nothing` in the same shape."""
    try:
        out = run()
    except Exception as error:
        return status_of(error), nothing
    return status_of(None), out
