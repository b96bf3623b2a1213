"""What several ranks do together: the collectives that sharded mathematics needs, and no more.

A rank is one of `size` processes (or threads, in tests) that compute one thing. All of them make
the same calls in the same order; one that does not leaves the others waiting. The implementation
over torch.distributed is `runtime.parallel.group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from worldline.core.errors import ConfigError


class Collectives(Protocol):
    """A group as one of its ranks sees it. `name` says for what, in the counts of a group."""

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def aside(self) -> Collectives:
        """The same ranks, for work beside this: collectives of one group wait for each other."""
        ...

    def all_to_all(
        self,
        received: Tensor,
        sent: Tensor,
        *,
        name: str,
        taken: Sequence[int] = (),
        given: Sequence[int] = (),
    ) -> None:
        """Rows (dimension 0) of `sent` go to the ranks in order, those of `received` come so.

        `given[r]` rows go to rank r and `taken[r]` come from it, 0 allowed; without both, equally
        many. Contiguous tensors of one dtype.
        """
        ...

    def all_gather(self, received: Tensor, part: Tensor, *, name: str) -> None:
        """Rows of `received` are the `part` of every rank in order; parts of equal shape."""
        ...

    def agree(self, wanted: bool) -> bool:
        """What rank 0 wants, on every rank; the others' `wanted` does not count."""
        ...

    def every(self, able: bool) -> bool:
        """Whether every rank is able, on every rank."""
        ...


class Alone:
    """The `Collectives` of one rank, which nobody ever calls."""

    rank = 0
    size = 1

    @property
    def aside(self) -> Alone:
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
        """See `Collectives`: what is sent is received."""
        del name, taken, given
        received.copy_(sent)

    def all_gather(self, received: Tensor, part: Tensor, *, name: str) -> None:
        """See `Collectives`: the part is the whole."""
        del name
        received.copy_(part)

    def agree(self, wanted: bool) -> bool:
        """See `Collectives`."""
        return wanted

    def every(self, able: bool) -> bool:
        """See `Collectives`."""
        return able


ALONE = Alone()


class Split(NamedTuple):
    """How many of something each rank has: as even as can be, the first ranks have one more."""

    counts: tuple[int, ...]

    @classmethod
    def of(cls, total: int, ranks: int) -> Split:
        """Split `total` things. Raises `ConfigError` where a rank would have none."""
        if total < ranks:
            raise ConfigError("too little to share", expected=f"at least {ranks}", got=total)
        least, more = divmod(total, ranks)
        return cls(tuple(least + (rank < more) for rank in range(ranks)))

    @property
    def total(self) -> int:
        """All together."""
        return sum(self.counts)

    @property
    def even(self) -> bool:
        """Whether all have equally many, so that collectives of a fixed size do."""
        return min(self.counts) == max(self.counts)

    def part(self, rank: int) -> range:
        """What `rank` has of `range(total)`."""
        start = sum(self.counts[:rank])
        return range(start, start + self.counts[rank])
