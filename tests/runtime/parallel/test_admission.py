"""Who has room for a session is decided by all ranks together: the one with least has its say."""

from __future__ import annotations

import pytest

from tests.ranks import on_ranks
from worldline.core.errors import CapacityError
from worldline.runtime.ledger import Ledger
from worldline.runtime.parallel.group import Group


def test_a_session_that_one_rank_has_no_room_for_is_refused_by_all() -> None:
    def run(group: Group) -> list[str]:
        ledger, told = Ledger(50 if group.rank == 1 else 1000, group.every), list[str]()
        for name, size in (("a", 30), ("b", 30), ("c", 20)):
            try:
                ledger.admit(name, size)
                told.append(name)
            except CapacityError:
                told.append(f"not {name}")
        return [*told, str(ledger.open_bytes)]

    assert on_ranks(3, run) == [["a", "not b", "c", "50"]] * 3


@pytest.mark.parametrize("able", [True, False])
def test_all_of_them_or_none(able: bool) -> None:
    assert on_ranks(2, lambda group: group.every(able or group.rank == 0)) == [able] * 2
