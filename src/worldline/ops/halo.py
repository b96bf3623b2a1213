"""A picture cut into columns among ranks: whose they are, and what neighbours lend each other.

Cuts fall on latent columns, so a rank owns whole latent cells at every scale of an autoencoder. A
layer that looks one pixel to the side has its `Shard` `widen` what it sees; one that looks at the
whole picture asks for `all` of it. Every rank must run the same layers in the same order. Knows no
model and no backend.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from worldline.core.errors import ConfigError

LENT = 2  # columns of neighbours beside what a rank owns, after `widen`


class Part(NamedTuple):
    """The columns `start:stop` that a rank owns of `width`, counted in latent cells."""

    start: int
    stop: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Its columns of the whole `x [..., H, W]`, `W` any multiple of `width`."""
        scale = x.shape[-1] // self.width
        return x[..., scale * self.start : scale * self.stop]


def cut(width: int, size: int) -> tuple[Part, ...]:
    """Cut `width` latent columns for `size` ranks as evenly as possible, wider parts first.

    Raises: ConfigError where a rank would own nothing.
    """
    if not 1 <= size <= width:
        expected = f"1 to {width} ranks, a latent column each"
        raise ConfigError(
            "the picture cannot be cut for so many ranks", expected=expected, got=size
        )
    least, wider = divmod(width, size)
    edges = [rank * least + min(rank, wider) for rank in range(size + 1)]
    return tuple(Part(a, b, width) for a, b in zip(edges, edges[1:], strict=False))


class Exchange(Protocol):
    """What ranks tell each other. All of them make the same calls with tensors of equal shapes."""

    @property
    def rank(self) -> int:
        """Ours, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def swap(self, to_left: Tensor, to_right: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What the left neighbour sent right and the right one sent left; None beyond an edge.

        With `to_right` None nothing goes right, on no rank.
        """
        ...

    def gather(self, x: Tensor) -> list[Tensor]:
        """Everybody's `x` in order of rank, on every rank."""
        ...

    def collect(self, x: Tensor, root: int) -> list[Tensor] | None:
        """Everybody's `x` in order of rank, on `root`; None elsewhere."""
        ...


class Shard:
    """One rank's columns of a picture; `part` says which."""

    def __init__(self, width: int, exchange: Exchange) -> None:
        """Of `width` latent columns. Raises: ConfigError where there are fewer than ranks."""
        self._parts = cut(width, exchange.size)
        self._exchange = exchange
        self.part = self._parts[exchange.rank]

    def widen(self, x: Tensor) -> Tensor:
        """`x [..., H, w]` with a column of each neighbour beside it, zeros beyond an edge."""
        left, right = self._exchange.swap(x[..., :1].contiguous(), x[..., -1:].contiguous())
        return torch.cat([_or_zeros(left, x), x, _or_zeros(right, x)], dim=-1)

    def widen_right(self, x: Tensor) -> Tensor:
        """`x [..., H, w]` with the right neighbour's first column, or zeros: `[..., H, w+1]`."""
        _, right = self._exchange.swap(x[..., :1].contiguous(), None)
        return torch.cat([x, _or_zeros(right, x)], dim=-1)

    def all(self, x: Tensor) -> Tensor:
        """The whole picture `[..., H, W]` of which `x [..., H, w]` are our columns."""
        return self._join(self._exchange.gather(self._even(x)), x)

    def collect(self, x: Tensor, root: int) -> Tensor | None:
        """The whole picture on rank `root`, None elsewhere."""
        pieces = self._exchange.collect(self._even(x), root)
        return None if pieces is None else self._join(pieces, x)

    def _even(self, x: Tensor) -> Tensor:
        """`x` with zeros at its right up to the width of the widest part: one shape for all."""
        widest = self._parts[0].stop
        missing = widest * self._scale(x) - x.shape[-1]
        return F.pad(x, (0, missing)) if missing else x.contiguous()

    def _join(self, pieces: list[Tensor], x: Tensor) -> Tensor:
        scale = self._scale(x)
        own = [scale * (part.stop - part.start) for part in self._parts]
        return torch.cat([p[..., :w] for p, w in zip(pieces, own, strict=True)], dim=-1)

    def _scale(self, x: Tensor) -> int:
        scale, rest = divmod(x.shape[-1], self.part.stop - self.part.start)
        assert not rest, f"{x.shape[-1]} columns are no whole cells of {self.part}"
        return scale


def _or_zeros(column: Tensor | None, x: Tensor) -> Tensor:
    return torch.zeros_like(x[..., :1]) if column is None else column
