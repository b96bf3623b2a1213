"""Groups: collectives of equal and unequal parts, what is counted, what rank 0 says."""

from __future__ import annotations

import pytest
import torch

from tests.ranks import on_ranks
from worldline.core.errors import ConfigError, WorkerDiedError
from worldline.ops.collectives import Alone, Collectives, Split
from worldline.runtime.parallel.group import Group


def test_a_split_is_as_even_as_can_be_and_refuses_to_leave_a_rank_without() -> None:
    split = Split.of(11, 4)
    assert split.counts == (3, 3, 3, 2) and not split.even and split.total == 11
    assert [split.part(rank) for rank in range(4)] == [
        range(3),
        range(3, 6),
        range(6, 9),
        range(9, 11),
    ]
    assert Split.of(8, 4).even
    with pytest.raises(ConfigError, match="at least 4; got 3"):
        Split.of(3, 4)


def test_equal_parts_go_round_and_are_counted() -> None:
    def run(group: Group) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        sent = torch.arange(6).view(3, 2) + 10 * group.rank
        received = torch.empty_like(sent)
        group.all_to_all(received, sent, name="a")
        parts = torch.empty(3, 2, dtype=torch.int64)
        group.all_gather(parts, received[:1].contiguous(), name="b")
        return received, parts, group.traffic.nbytes["a"], group.traffic.nbytes["b"]

    for rank, (received, parts, sent, gathered) in enumerate(on_ranks(3, run)):
        assert received[:, 0].tolist() == [2 * rank, 2 * rank + 10, 2 * rank + 20]
        assert parts[:, 0].tolist() == [0, 2, 4]
        assert sent == 2 * 2 * 8 and gathered == 2 * 2 * 8


def test_unequal_parts_go_round_none_included() -> None:
    given = [[0, 1, 2], [1, 0, 3], [2, 2, 0]]  # rows that rank r gives to rank c

    def run(group: Group) -> tuple[list[int], int]:
        mine = given[group.rank]
        sent = torch.tensor([10 * group.rank + to for to in range(3) for _ in range(mine[to])])
        taken = [row[group.rank] for row in given]
        received = torch.empty(sum(taken), dtype=sent.dtype)
        group.all_to_all(received, sent, name="a", taken=taken, given=mine)
        return received.tolist(), group.traffic.nbytes["a"]

    results = on_ranks(3, run)
    assert [rows for rows, _ in results] == [[10, 20, 20], [1, 21, 21], [2, 2, 12, 12, 12]]
    assert [sent for _, sent in results] == [24, 32, 32]


def test_rank_0_decides_and_its_bytes_reach_all() -> None:
    def run(group: Group) -> tuple[bool, bool, bytes, bytes]:
        yes = group.agree(group.rank == 0)
        no = group.agree(group.rank != 0)
        said = group.say(b"step 7" if group.rank == 0 else None)
        nothing = group.say(b"" if group.rank == 0 else None)
        group.meet()
        return yes, no, said, nothing

    assert on_ranks(3, run) == [(True, False, b"step 7", b"")] * 3


def test_a_rank_that_is_gone_is_a_typed_error() -> None:
    def run(group: Group) -> str:
        if group.rank == 1:
            return "left"
        with pytest.raises(WorkerDiedError, match="another rank is gone during a"):
            group.all_to_all(torch.empty(2, 1), torch.ones(2, 1), name="a")
        return "told"

    assert on_ranks(2, run, patience_s=1.0) == ["told", "left"]


def test_alone_gets_what_it_sends() -> None:
    alone: Collectives = Alone()
    received = torch.empty(3)
    alone.all_to_all(received, torch.arange(3.0), name="a")
    assert received.tolist() == [0, 1, 2]
    alone.all_gather(received, torch.ones(3), name="a")
    assert received.tolist() == [1, 1, 1] and (alone.rank, alone.size) == (0, 1)
