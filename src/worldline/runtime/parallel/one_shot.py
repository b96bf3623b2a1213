"""An all-to-all of equal parts without NCCL: every rank writes into the others' memory, at once.

Between GPUs that see each other's memory, a copy into it needs no handshake of a library, only two
meetings: nobody still reads what was there before, and everybody has written. Both are kernels, so
a graph may record them. What is received is copied out, so that the next exchange may begin.

Has not run on several GPUs yet: `choice` holds it against NCCL before it is ever used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Peers(Protocol):
    """Buffers of equal size, one on each rank, that every rank can write into."""

    def at(self, rank: int) -> Tensor:
        """The buffer of `rank`, uint8."""
        ...

    def meet(self) -> None:
        """What was queued before this on any rank ends before anything queued after it begins."""
        ...


class OneShot:
    """The exchange, as one of `size` ranks does it; `make` is asked for peers once per size.

    `make` meets the other ranks, so all of them must come with the same sizes in the same order.
    """

    def __init__(self, rank: int, size: int, make: Callable[[int], Peers]) -> None:
        self._rank, self._size, self._make = rank, size, make
        self._peers: dict[int, Peers] = {}  # by bytes; for ever, because graphs hold addresses

    def __call__(self, received: Tensor, sent: Tensor) -> None:
        """Equal parts of `sent` go to the ranks in order, those of `received` come so."""
        ours, nbytes = sent.view(torch.uint8).flatten(), sent.nbytes
        peers = self._peers.get(nbytes)
        if peers is None:
            peers = self._peers[nbytes] = self._make(nbytes)
        part, rank = nbytes // self._size, self._rank
        peers.meet()
        for step in range(1, self._size + 1):  # each begins with another one
            to = (rank + step) % self._size
            piece = ours[part * to : part * (to + 1)]
            peers.at(to)[part * rank : part * (rank + 1)].copy_(piece)
        peers.meet()
        received.view(torch.uint8).flatten().copy_(peers.at(rank))


class SymmetricPeers:
    """`Peers` by torch's symmetric memory.

    Raises `RuntimeError` where GPUs cannot see each other.
    """

    def __init__(self, group: dist.ProcessGroup, nbytes: int, device: torch.device) -> None:
        """Meets all ranks of the group."""
        import torch.distributed._symmetric_memory as symmetric

        self._own = symmetric.empty(nbytes, dtype=torch.uint8, device=device)
        self._handle = symmetric.rendezvous(self._own, group)
        self._nbytes = nbytes

    def at(self, rank: int) -> Tensor:
        """See `Peers`."""
        return self._handle.get_buffer(rank, (self._nbytes,), torch.uint8)

    def meet(self) -> None:
        """See `Peers`."""
        self._handle.barrier(channel=0)
