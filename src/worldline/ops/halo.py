"""A picture cut into columns among ranks: whose they are, and what neighbours lend each other.

Cuts fall on latent columns, so a rank owns whole latent cells at every scale of an autoencoder. A
layer that looks one pixel to the side lets its `Columns` `widen` what it sees; one that looks at
the whole picture asks for `all` of it. Every rank must run the same layers in the same order. Knows
no model and no backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldline.ops.collectives import Collectives, Split

LENT = 2  # columns of neighbours beside what a rank owns, after `widen`


class Part(NamedTuple):
    """The columns `start:stop` that a rank owns of `width`, counted in latent cells."""

    start: int
    stop: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Its columns of the whole `x [..., H, W]`, `W` any multiple of `width`."""
        scale, rest = divmod(x.shape[-1], self.width)
        assert not rest, f"{x.shape[-1]} columns are not {self.width} latent ones"
        return x[..., scale * self.start : scale * self.stop]


def cut(width: int, ranks: int) -> tuple[Part, ...]:
    """Cut `width` latent columns as evenly as possible, wider parts first.

    Raises: ConfigError where a rank would own nothing.
    """
    split = Split.of(width, ranks)
    owned = [split.part(rank) for rank in range(ranks)]
    return tuple(Part(columns.start, columns.stop, width) for columns in owned)


class Columns:
    """One rank's columns of a picture; `part` says which."""

    def __init__(self, width: int, group: Collectives) -> None:
        """Of `width` latent columns. Raises: ConfigError where there are fewer than ranks."""
        self._parts = cut(width, group.size)
        self._group = group
        self.part = self._parts[group.rank]

    def widen(self, x: Tensor) -> Tensor:
        """`x [..., H, w]` with a column of each neighbour beside it, zeros beyond an edge."""
        left, right = self._lent(x)
        zeros = torch.zeros_like(x[..., :1])
        return torch.cat(
            [zeros if left is None else left, x, zeros if right is None else right], dim=-1
        )

    def widen_into(self, out: Tensor, x: Tensor) -> None:
        """Write into `out [..., H, w+2]` what `widen` gives: one copy less where it is a part."""
        left, right = self._lent(x)
        out[..., 1:-1] = x
        out[..., :1] = 0 if left is None else left
        out[..., -1:] = 0 if right is None else right

    def widen_right(self, x: Tensor) -> Tensor:
        """`x [..., H, w]` with the right neighbour's first column, or zeros: `[..., H, w+1]`."""
        left, right = self._group.rank - 1, self._group.rank + 1
        lent = self._swap(x, to=self._existing(left), of=self._existing(right))
        return torch.cat([x, lent.get(right, torch.zeros_like(x[..., :1]))], dim=-1)

    def all(self, x: Tensor, *, name: str) -> Tensor:
        """The whole picture `[..., H, W]` of which `x [..., H, w]` are our columns."""
        even = self._even(x)
        pieces = even.new_empty(self._group.size, *even.shape)
        self._group.all_gather(pieces.flatten(0, 1), even, name=name)
        return self._join(pieces, x)

    def collect(self, x: Tensor, root: int, *, name: str) -> Tensor | None:
        """The whole picture on rank `root`, None elsewhere."""
        even, size = self._even(x), self._group.size
        to_root = [int(rank == root) for rank in range(size)]
        of_all = [int(self._group.rank == root)] * size
        pieces = even.new_empty(sum(of_all), *even.shape)
        self._group.all_to_all(pieces, even[None], name=name, given=to_root, taken=of_all)
        return self._join(pieces, x) if self._group.rank == root else None

    def _lent(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The neighbours' nearest columns, left and right; None beyond an edge."""
        beside = self._existing(self._group.rank - 1, self._group.rank + 1)
        lent = self._swap(x, to=beside, of=beside)
        return lent.get(self._group.rank - 1), lent.get(self._group.rank + 1)

    def _existing(self, *ranks: int) -> list[int]:
        return [rank for rank in ranks if 0 <= rank < self._group.size]

    def _swap(self, x: Tensor, *, to: Sequence[int], of: Sequence[int]) -> dict[int, Tensor]:
        """Send the nearest column of `x` to neighbours `to`; the nearest one of each of `of`."""
        ranks, column = range(self._group.size), (*x.shape[:-1], 1)
        sent = x.new_empty(len(to), *column)
        for row, rank in zip(sent, to, strict=True):
            row.copy_(x[..., :1] if rank < self._group.rank else x[..., -1:])
        received = x.new_empty(len(of), *column)
        given, taken = ([int(rank in some) for rank in ranks] for some in (to, of))
        self._group.all_to_all(received, sent, name="vae halo", given=given, taken=taken)
        return dict(zip(of, received.unbind(), strict=True))

    def _even(self, x: Tensor) -> Tensor:
        """`x` with zeros at its right up to the width of the widest part: one shape for all."""
        missing = self._parts[0].stop * self._scale(x) - x.shape[-1]
        return F.pad(x, (0, missing)) if missing else x.contiguous()

    def _join(self, pieces: Tensor, x: Tensor) -> Tensor:
        owned = [self._scale(x) * (part.stop - part.start) for part in self._parts]
        return torch.cat([p[..., :w] for p, w in zip(pieces, owned, strict=True)], dim=-1)

    def _scale(self, x: Tensor) -> int:
        scale, rest = divmod(x.shape[-1], self.part.stop - self.part.start)
        assert not rest, f"{x.shape[-1]} columns are no whole cells of {self.part}"
        return scale
