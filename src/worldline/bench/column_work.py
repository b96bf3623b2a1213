"""What an autoencoder cut into columns sends between ranks, counted on the meta device.

The network itself is asked, exchange by exchange, as for its FLOPs (`decode_work`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldline.models.preset import Preset
from worldline.runtime.parallel.vae import CELL, ColumnVae, SharedVae
from worldline.runtime.parts import build_networks

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

    def _count(self, name: str, nbytes: int) -> None:
        self.calls[name] += 1
        self.nbytes[name] += nbytes


@torch.no_grad()
def decode_exchanges(
    preset: Preset, chunk: int, grid: tuple[int, int], *, ranks: int, dtype: torch.dtype
) -> Exchanged:
    """Of decoding `chunk` latent frames of `grid` `(h, w)` in the middle of a clip."""
    latents = torch.empty(1, LATENT_CHANNELS, chunk, *grid, device="meta")
    return _busiest(
        build_networks(preset).vae.to(dtype),
        ranks,
        lambda vae, state: vae.decode_stream(latents, state),
    )


@torch.no_grad()
def encode_exchanges(
    preset: Preset, chunk: int, grid: tuple[int, int], *, ranks: int, dtype: torch.dtype
) -> Exchanged:
    """Of encoding as many in the middle of a clip: a start picture's early chunks need it."""
    size = (CELL * grid[0], CELL * grid[1])
    first, later = (torch.empty(1, 3, n, *size, device="meta") for n in (1, 4 * chunk))
    return _busiest(
        build_networks(preset).vae.to(dtype),
        ranks,
        lambda vae, state: vae.encode_stream(first if state is None else later, state),
    )


def _busiest(
    vae: ColumnVae, ranks: int, run: Callable[[SharedVae, Any], tuple[Tensor, Any]]
) -> Exchanged:
    """Of a rank in the middle, which has two neighbours and sends its pictures to the first."""
    if ranks == 1:
        return Exchanged(0, 0)
    group = Counted(1, ranks)
    shared = SharedVae(vae, group)
    _, state = run(shared, None)
    group.calls.clear()
    group.nbytes.clear()
    run(shared, state)
    return Exchanged(sum(group.calls.values()), sum(group.nbytes.values()))
