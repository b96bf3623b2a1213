"""What a chunk sends between ranks, computed: the formula that counted traffic is held against.

Per rank and block, one all-to-all takes queries, keys and values to the ranks of their heads and
one brings the results back: `4 (N/P) d B (P-1)/P` bytes for `N` tokens of width `d` in numbers of
`B` bytes on `P` ranks, times blocks, times passes. Where neither tokens nor heads come out even,
the sum over all ranks hardly differs. The context pass saves half of that in the last
block, which stops after its cache write: queries and results are never made. Denoise passes gather
their result, one row of the head's output per token.

Torch-free, so that a plan can be explained without it.
"""

from __future__ import annotations

from typing import NamedTuple

FLOAT32 = 4


class Sent(NamedTuple):
    """Collectives that every rank takes part in, and bytes that all ranks send to others."""

    calls: int
    nbytes: int

    def __add__(self, other: object) -> Sent:
        """Both together."""
        assert isinstance(other, Sent), "only traffic adds up"
        return Sent(self.calls + other.calls, self.nbytes + other.nbytes)


class Sharing(NamedTuple):
    """A chunk on `ranks`: its tokens, the transformer's sizes, and how its passes are made.

    `width` is spread by `heads`; `values` are the head's outputs per token. `whole_context`: the
    context pass runs to its end, as a denoise pass does.
    """

    ranks: int
    tokens: int
    width: int
    heads: int
    layers: int
    steps: int
    itemsize: int
    values: int
    whole_context: bool = False


def formula(sharing: Sharing) -> Sent:
    """All blocks of all passes, whole: `2 L` collectives a pass."""
    blocks = sharing.layers * (sharing.steps + 1)
    numbers = 4 * sharing.tokens * sharing.width * (sharing.ranks - 1) / sharing.ranks
    return Sent(2 * blocks, round(blocks * numbers * sharing.itemsize))


def expected(sharing: Sharing) -> dict[str, Sent]:
    """Exactly what is counted, by the names in `ops.shard`; empty on one rank."""
    if sharing.ranks == 1:
        return {}
    whole = sharing.layers * (sharing.steps + sharing.whole_context)
    short = 0 if sharing.whole_context else sharing.layers - 1
    blocks, gathers = whole + short, sharing.steps + sharing.whole_context
    most = -(-sharing.tokens // sharing.ranks)  # parts of a gather have one size
    row = most * sharing.values * FLOAT32
    sent = {
        "qkv": Sent(blocks, blocks * _exchange(sharing, 3)),
        "heads": Sent(blocks, blocks * _exchange(sharing, 1)),
        "flow": Sent(gathers, gathers * sharing.ranks * (sharing.ranks - 1) * row),
    }
    if not sharing.whole_context:
        sent["kv"] = Sent(1, _exchange(sharing, 2))
    return sent


def _exchange(sharing: Sharing, tensors: int) -> int:
    """Bytes of one all-to-all of so many tensors, of all ranks: everything but what stays."""
    tokens, heads = (_spread(n, sharing.ranks) for n in (sharing.tokens, sharing.heads))
    stays = sum(t * h for t, h in zip(tokens, heads, strict=True))
    numbers = (sharing.tokens * sharing.heads - stays) * (sharing.width // sharing.heads)
    return tensors * numbers * sharing.itemsize


def _spread(total: int, ranks: int) -> list[int]:
    """As `ops.collectives.Split`, which needs torch."""
    return [total // ranks + (rank < total % ranks) for rank in range(ranks)]
