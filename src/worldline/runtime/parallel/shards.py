"""How a world is shared out: what each rank has of the chunks of every size, decided once per size.

An `Engine` has one `Shards` (`Engine.shards`). Everything that differs between ranks is asked of
it: which tokens are ours, how many heads a ring holds. With one rank nothing is ever shared out.
"""

from __future__ import annotations

from worldline.core.errors import ConfigError
from worldline.ops.collectives import ALONE, Collectives, Split
from worldline.ops.shard import WHOLE, Shard, TokenShard


class Shards:
    """What `group` shares out, as one of its ranks sees it."""

    def __init__(self, group: Collectives = ALONE) -> None:
        self.group = group
        self._known: dict[int, Shard] = {}

    @property
    def ranks(self) -> int:
        """Over how many ranks heads and tokens are spread."""
        return self.group.size

    def heads(self, heads: int) -> int:
        """How many of the heads of all ranks are this one's."""
        return heads if self.ranks == 1 else Split.of(heads, self.ranks).counts[self.group.rank]

    def of(self, tokens: int) -> Shard:
        """This rank's part of a chunk, or of a rest of one, of so many tokens; one object each.

        Raises `ConfigError` where there are fewer tokens than ranks.
        """
        if self.ranks == 1:
            return WHOLE
        if tokens not in self._known:
            self._known[tokens] = TokenShard(self.group, Split.of(tokens, self.ranks))
        return self._known[tokens]


class Unshared(Shards):
    """Sharing switched off for a session of a group: every rank computes all of it.

    The ranks still decide together, so that all of them stay at the same chunk.
    """

    @property
    def ranks(self) -> int:
        """See `Shards`."""
        return 1


def check_degree(heads: int, ranks: int, *, ring: int = 1, uneven: bool = False) -> None:
    """Refuse a number of ranks that `heads` cannot be spread over. Raises `ConfigError`.

    `ring` is the degree of ring attention, which there is none of. With `uneven` some ranks may
    have a head more than others, and wait for less: for worlds that are not about speed.
    """
    if ring != 1:
        raise ConfigError("ring attention is not supported", expected="a ring of 1", got=ring)
    able = list(range(1, heads + 1)) if uneven else degrees(heads)
    if ranks not in able:
        raise ConfigError(
            f"{heads} heads cannot be spread evenly over the ranks",
            expected="one of " + ", ".join(map(str, able)),
            got=ranks,
        )


def degrees(heads: int) -> list[int]:
    """Numbers of ranks that `heads` can be spread over evenly."""
    return [ranks for ranks in range(1, heads + 1) if heads % ranks == 0]
