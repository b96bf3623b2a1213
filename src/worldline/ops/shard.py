"""Ulysses: the tokens of a chunk on several ranks, and all of them, for some heads, in attention.

Between attentions every operation of a block looks at one token at a time, so a rank computes its
own tokens and no others. For attention one packed all-to-all gives it the queries, keys and values
of every token for `N / P` heads, and another one gives the results back. Keys and values of earlier
chunks are kept by heads, so a ring holds `N / P` of them on each rank and is never sent. Text is on
every rank and needs no collective.

Tokens keep their places: rank r has a run of them, and of every table (rotary positions, camera,
time) the rows of that run. `WHOLE` shares nothing out.
"""

from __future__ import annotations

from typing import Protocol

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


class TokenShard:
    """A `Shard` in a group; `even` splits take collectives of a fixed size, others of any sizes."""

    def __init__(self, group: Collectives, split: Split) -> None:
        """`split` has one count per rank of `group`."""
        assert len(split.counts) == group.size, f"{split} for {group.size} ranks"
        self._group, self._split = group, split
        self._own = split.part(group.rank)
        # Sizes of collectives: none are said where all are equal.
        self._counts = () if split.even else split.counts
        self._mine = () if split.even else (len(self._own),) * group.size

    @property
    def tokens(self) -> range:
        """See `Shard`."""
        return self._own

    @property
    def even(self) -> bool:
        """Whether every rank has equally many."""
        return self._split.even

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
        ranks, heads = self._group.size, parts[0].shape[2]
        assert heads % ranks == 0, f"{heads} heads on {ranks} ranks"
        # Row by row of the tokens for each rank in turn: what a rank receives lies in their order.
        packed = torch.stack(parts).unflatten(3, (ranks, -1))  # q B n P N/P D
        sent = packed.permute(3, 2, 1, 0, 4, 5).flatten(0, 1)  # P*n B q N/P D
        received = sent.new_empty((self._split.total, *sent.shape[1:]))  # L B q N/P D
        self._group.all_to_all(received, sent, name=name, taken=self._counts, given=self._mine)
        return [received[:, :, i].transpose(0, 1) for i in range(len(parts))]

    def to_tokens(self, x: Tensor) -> Tensor:
        """`x [B, L, N/P, D]` -> `[B, L/P, N, D]`."""
        sent = x.transpose(0, 1).contiguous()  # L B N/P D
        received = sent.new_empty((self._group.size * len(self._own), *sent.shape[1:]))
        self._group.all_to_all(received, sent, name=TO_TOKENS, taken=self._mine, given=self._counts)
        parts = received.unflatten(0, (self._group.size, -1))  # P n B N/P D
        return parts.permute(2, 1, 0, 3, 4).flatten(2, 3)  # B n N D

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
        q, k, v = self._shard.to_heads(q, k, v, name=TO_HEADS)
        return self._shard.to_tokens(self._inner(layer, q, k, v))


class _Storing(_ByHeads):
    """The same, which can also store."""

    def __init__(self, shard: TokenShard, inner: CacheWriter) -> None:
        super().__init__(shard, inner)
        self._writer = inner

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store `k, v [B, L/P, N, D]` of block `layer`; nothing comes back."""
        k, v = self._shard.to_heads(k, v, name=KEYS)
        self._writer.write(layer, k, v)
