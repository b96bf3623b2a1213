"""Ulysses: the tokens of a chunk on several ranks, and all of them, for some heads, in attention.

Between attentions every operation of a block looks at one token at a time, so a rank computes its
own tokens and no others. For attention one packed all-to-all gives it the queries, keys and values
of every token for `N / P` heads, and another one gives the results back. Keys and values of earlier
chunks are kept by heads, so a ring holds `N / P` of them on each rank and is never sent. Text is on
every rank and needs no collective. Heads that do not divide by the ranks are spread as evenly as
can be.

Tokens keep their places: rank r has a run of them, and of every table (rotary positions, camera,
time) the rows of that run. `WHOLE` shares nothing out.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.ops.attention import Attend, CacheWriter
from worldline.ops.collectives import Collectives, Split

TO_HEADS, KEYS, TO_TOKENS, FLOW = "qkv", "kv", "heads", "flow"  # names in a group's counts


class Shard(Protocol):
    """What one rank has of the tokens of a chunk of one size."""

    @property
    def tokens(self) -> range | None:
        """Which tokens of the chunk; None for all."""
        ...

    def cut(self, x: Tensor) -> Tensor:
        """This rank's rows of `x [B, L, ...]`; of one row for all tokens, that row."""
        ...

    def attend(self, inner: Attend) -> Attend:
        """`inner`, which sees all tokens and this rank's heads, as a block calls it."""
        ...

    def writer(self, inner: CacheWriter) -> CacheWriter:
        """The same of one that can also store."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """Rows of all ranks: `x [B, L/P, C]` -> `[B, L, C]`, equal on all of them."""
        ...


class Whole:
    """The `Shard` of a rank that has all tokens."""

    tokens: range | None = None

    def cut(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x

    def attend(self, inner: Attend) -> Attend:
        """`inner` itself."""
        return inner

    def writer(self, inner: CacheWriter) -> CacheWriter:
        """`inner` itself."""
        return inner

    def gather(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x


WHOLE = Whole()


class _Sizes(NamedTuple):
    """Of a collective, in numbers by rank; none are said where all of them are equal."""

    heads: Split
    by_heads: tuple[int, ...]  # of our tokens, the heads of each rank
    by_tokens: tuple[int, ...]  # of our heads, the tokens of each rank


class TokenShard:
    """A `Shard` in a group.

    Where all ranks have equally many tokens and heads, collectives have a fixed size; else any.
    """

    def __init__(self, group: Collectives, split: Split) -> None:
        """`split` has one count per rank of `group`."""
        assert len(split.counts) == group.size, f"{split} for {group.size} ranks"
        self._group, self._split = group, split
        self._own = split.part(group.rank)
        self._sizes: dict[tuple[int, int], _Sizes] = {}  # by heads and numbers of each

    @property
    def tokens(self) -> range:
        """See `Shard`."""
        return self._own

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self._group.size

    def cut(self, x: Tensor) -> Tensor:
        """See `Shard`; a view."""
        if x.shape[1] == 1 != self._split.total:
            return x
        assert x.shape[1] == self._split.total, f"{x.shape[1]} of {self._split.total} tokens"
        return x[:, self._own.start : self._own.stop]

    def attend(self, inner: Attend) -> Attend:
        """See `Shard`."""
        return _ByHeads(self, inner)

    def writer(self, inner: CacheWriter) -> CacheWriter:
        """See `Shard`."""
        return _Storing(self, inner)

    def to_heads(self, *parts: Tensor, name: str) -> list[Tensor]:
        """Each of `parts [B, L/P, N, D]` -> `[B, L, N/P, D]`, all in one collective."""
        batch, _, total, width = parts[0].shape
        sizes = self._sizes_of(total, batch * len(parts) * width)
        # By ranks, then by tokens: what comes from all ranks lies in the order of tokens.
        turned = [part.transpose(0, 1) for part in parts]  # n B N D
        if sizes.heads.even:
            by_rank = [part.unflatten(2, (self.ranks, -1)).movedim(2, 0) for part in turned]
            sent = torch.stack(by_rank, dim=3)  # P n B q N/P D
        else:
            each = zip(*(part.split(sizes.heads.counts, dim=2) for part in turned), strict=True)
            sent = torch.cat([torch.stack(some, dim=2).flatten() for some in each])
        own = sizes.heads.counts[self._group.rank]
        shape = (self._split.total, batch, len(parts), own, width)  # L B q N/P D
        received = sent.new_empty(shape)
        self._swap(received, sent, name, given=sizes.by_heads, taken=sizes.by_tokens)
        return [received[:, :, i].transpose(0, 1) for i in range(len(parts))]

    def to_tokens(self, x: Tensor, heads: int) -> Tensor:
        """`x [B, L, N/P, D]`, of so many heads on all ranks, -> `[B, L/P, N, D]`."""
        batch, _, _, width = x.shape
        sizes = self._sizes_of(heads, batch * width)
        sent = x.transpose(0, 1).contiguous()  # L B N/P D
        received = sent.new_empty(len(self._own) * batch * heads * width)
        self._swap(received, sent, TO_TOKENS, given=sizes.by_tokens, taken=sizes.by_heads)
        parts = received.split([len(self._own) * batch * n * width for n in sizes.heads.counts])
        shapes = ((len(self._own), batch, n, width) for n in sizes.heads.counts)
        whole = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat(whole, dim=2).transpose(0, 1)  # B n N D

    def _sizes_of(self, heads: int, row: int) -> _Sizes:
        """Of an exchange of `row` numbers for every token and head, found once."""
        known = self._sizes.get((heads, row))
        if known is None:
            split = Split.of(heads, self.ranks)
            own = split.counts[self._group.rank]
            by_heads = tuple(len(self._own) * count * row for count in split.counts)
            by_tokens = tuple(count * own * row for count in self._split.counts)
            fixed = split.even and self._split.even
            known = _Sizes(split, () if fixed else by_heads, () if fixed else by_tokens)
            self._sizes[heads, row] = known
        return known

    def _swap(
        self,
        received: Tensor,
        sent: Tensor,
        name: str,
        *,
        given: tuple[int, ...],
        taken: tuple[int, ...],
    ) -> None:
        self._group.all_to_all(
            received.flatten(), sent.flatten(), name=name, given=given, taken=taken
        )

    def gather(self, x: Tensor) -> Tensor:
        """See `Shard`."""
        rows, ranks = max(self._split.counts), self._group.size
        mine = x.transpose(0, 1).contiguous()  # n B C
        if rows > len(mine):  # a gather takes parts of one size
            mine = torch.cat([mine, mine[:1]])
        received = mine.new_empty((ranks * rows, *mine.shape[1:]))
        self._group.all_gather(received, mine, name=FLOW)
        if not self._split.even:
            each = zip(received.split(rows), self._split.counts, strict=True)
            received = torch.cat([some[:count] for some, count in each])
        return received.transpose(0, 1)  # B L C


class _ByHeads:
    """An attention of all tokens for some heads, called with some tokens and all heads."""

    def __init__(self, shard: TokenShard, inner: Attend) -> None:
        self._shard, self._inner = shard, inner

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend `q, k, v [B, L/P, N, D]` of block `layer`."""
        heads = q.shape[2]
        q, k, v = self._shard.to_heads(q, k, v, name=TO_HEADS)
        return self._shard.to_tokens(self._inner(layer, q, k, v), heads)


class _Storing(_ByHeads):
    """The same, which can also store."""

    def __init__(self, shard: TokenShard, inner: CacheWriter) -> None:
        super().__init__(shard, inner)
        self._writer = inner

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store `k, v [B, L/P, N, D]` of block `layer`; nothing comes back."""
        k, v = self._shard.to_heads(k, v, name=KEYS)
        self._writer.write(layer, k, v)
