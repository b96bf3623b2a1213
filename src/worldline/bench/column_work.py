"""What an autoencoder cut into columns sends between ranks, counted on the meta device.

The network itself is asked, exchange by exchange, as for its FLOPs (`decode_work`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.runtime.parallel.vae import ColumnVae, SharedVae

LATENT_CHANNELS = 16


class Exchanged(NamedTuple):
    """What one rank takes part in: collectives, and bytes that leave it; of the busiest rank."""

    calls: int
    nbytes: int


class Counted:
    """An `ops.collectives.Collectives` that sends nothing and counts what would be sent."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.calls: Counter[str] = Counter()
        self.nbytes: Counter[str] = Counter()

    @property
    def aside(self) -> Counted:
        """See `Collectives`."""
        return self

    def all_to_all(
        self,
        received: Tensor,
        sent: Tensor,
        *,
        name: str,
        taken: Sequence[int] = (),
        given: Sequence[int] = (),
    ) -> None:
        """See `Collectives`."""
        del received, taken
        kept = given[self.rank] if given else sent.shape[0] // self.size
        self._count(name, sent.nbytes * (sent.shape[0] - kept) // max(1, sent.shape[0]))

    def all_gather(self, received: Tensor, part: Tensor, *, name: str) -> None:
        """See `Collectives`."""
        del received
        self._count(name, part.nbytes * (self.size - 1))

    def agree(self, wanted: bool) -> bool:
        """See `Collectives`."""
        return wanted

    def every(self, able: bool) -> bool:
        """See `Collectives`."""
        return able

    def _count(self, name: str, nbytes: int) -> None:
        self.calls[name] += 1
        self.nbytes[name] += nbytes


@torch.no_grad()
def decode_exchanges(vae: ColumnVae, chunk: int, grid: tuple[int, int], *, ranks: int) -> Exchanged:
    """Of decoding `chunk` latent frames of `grid` `(h, w)` in the middle of a clip.

    `vae` is on the meta device, in the dtype it is run in. Counted is a rank that has two
    neighbours and sends its pictures to the first.
    """
    if ranks == 1:
        return Exchanged(0, 0)
    group = Counted(1, ranks)
    shared = SharedVae(vae, group)
    latents = torch.empty(1, LATENT_CHANNELS, chunk, *grid, device="meta")
    _, state = shared.decode_stream(latents, None)
    group.calls.clear()
    group.nbytes.clear()
    shared.decode_stream(latents, state)
    return Exchanged(sum(group.calls.values()), sum(group.nbytes.values()))
