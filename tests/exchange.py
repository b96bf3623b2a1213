"""Ranks in one process: threads that meet at a barrier, for everything built on an `Exchange`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
PATIENCE = 60  # seconds until a rank that waits for one that is gone gives up


class Table:
    """What the ranks of one group lay down for each other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=PATIENCE)
        self.given: list[tuple[Tensor | None, ...]] = [()] * size


class ThreadExchange:
    """See `ops.halo.Exchange`; `calls` names what was called, with the numbers of one tensor."""

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank, self.size = table, rank, table.size
        self.calls: list[tuple[str, int]] = []

    def swap(self, to_left: Tensor, to_right: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        self.calls.append(("swap", to_left.numel()))
        given = self._lay((to_left, to_right))
        left = given[self.rank - 1][1] if self.rank else None
        right = given[self.rank + 1][0] if self.rank + 1 < self.size else None
        return left, right

    def gather(self, x: Tensor) -> list[Tensor]:
        self.calls.append(("gather", x.numel()))
        pieces = [piece for (piece,) in self._lay((x,)) if piece is not None]
        assert len({piece.shape for piece in pieces}) == 1, "gathered tensors have one shape"
        return pieces

    def collect(self, x: Tensor, root: int) -> list[Tensor] | None:
        pieces = self.gather(x)
        return pieces if self.rank == root else None

    def _lay(self, tensors: tuple[Tensor | None, ...]) -> list[tuple[Tensor | None, ...]]:
        assert all(t is None or t.is_contiguous() for t in tensors), "a backend would refuse it"
        self.table.given[self.rank] = tuple(None if t is None else t.clone() for t in tensors)
        self.table.barrier.wait()
        given = list(self.table.given)
        self.table.barrier.wait()
        return given


def on_ranks(size: int, work: Callable[[ThreadExchange], T]) -> list[T]:
    """Run `work` on so many ranks at once; what each returns. One that fails fails all."""
    table = Table(size)

    def run(rank: int) -> T:
        try:
            with torch.inference_mode():
                return work(ThreadExchange(table, rank))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
        failed = [error for f in futures if (error := f.exception()) is not None]
        for error in failed:
            if not isinstance(error, threading.BrokenBarrierError):
                raise error
        return [future.result() for future in futures]
