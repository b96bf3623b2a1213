"""The latents of a session, kept so that its film can be decoded once more, by another decoder.

On the screen a tiny decoder is quick enough and soft; the recording is then made by the full one,
from exactly the latents that were shown. Latents are kept on the host: 1.2 MB for a chunk of 12
frames at 832x480.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.ops.vae import StreamingVae
from worldline.runtime.lane import Lane


class LatentFilm:
    """Clean latents chunk by chunk, as the transformer made them."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._coming: tuple[Tensor, torch.cuda.Event] | None = None

    def __len__(self) -> int:
        return len(self._chunks) + (self._coming is not None)

    def __iter__(self) -> Iterator[Tensor]:
        """Latents `[1, 16, T, h, w]` of chunk after chunk, on the host."""
        return iter(list(self._all()))

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(chunk.nbytes for chunk in self._all())

    def append(self, latents: Tensor) -> None:
        """Keep the latents `[1, 16, T, h, w]` of the next chunk; the host waits for no GPU."""
        self._receive()
        if not latents.is_cuda:
            self._chunks.append(latents.clone())
            return
        host = torch.empty(latents.shape, dtype=latents.dtype, pin_memory=True)
        host.copy_(latents, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(latents.device))
        self._coming = host, copied

    def copy(self) -> LatentFilm:
        """Another one of the same chunks."""
        made = LatentFilm()
        made._chunks = list(self._all())
        return made

    def cut(self, chunks: int) -> None:
        """Keep the first `chunks` and no more."""
        del self._all()[chunks:]

    def clear(self) -> None:
        """Forget everything: another film begins."""
        self._chunks.clear()
        self._coming = None

    @torch.no_grad()
    def decode(
        self, vae: StreamingVae, device: torch.device, lane: Lane
    ) -> Iterator[NDArray[np.uint8]]:
        """Frames of chunk after chunk, uint8 `F H W 3`, decoded on `device`, fetched by `lane`."""
        state = None
        for chunk in list(self._all()):
            latents = chunk.to(device)
            with lane.decoding(latents):
                video, state = vae.decode_stream(latents, state)
            yield lane.fetch(video)

    def _all(self) -> list[Tensor]:
        self._receive()
        return self._chunks

    def _receive(self) -> None:
        """Take over the copy under way; by the next chunk it has long ended."""
        if self._coming is not None:
            host, copied = self._coming
            copied.synchronize()
            # Out of page-locked memory, of which a long film would take too much.
            self._chunks.append(host.clone())
            self._coming = None
