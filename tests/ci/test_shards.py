"""Shards: everything once, balanced, the same for the same cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.ci.baseline import Baseline, belongs
from tools.ci.case_reader import Listed
from tools.ci.shards import Timed, split, timed, total

seconds = st.integers(1, 900).map(lambda tenths: tenths / 10)
suites = st.lists(seconds, max_size=30).map(
    lambda times: [Timed(f"case-{i}", "", time, known=True) for i, time in enumerate(times)]
)


@given(cases=suites, count=st.integers(1, 12), data=st.data())
def test_shards_are_balanced_parts(cases: list[Timed], count: int, data: st.DataObject) -> None:
    shards = split(cases, count)
    assert len(shards) == count
    assert sorted(case for shard in shards for case in shard) == sorted(cases)
    assert all(shard == [case for case in cases if case in shard] for shard in shards)
    sums = [sum(case.seconds for case in shard) for shard in shards]
    longest = max((case.seconds for case in cases), default=0)
    assert max(sums) - min(sums) <= longest + 1e-9
    turned = split(data.draw(st.permutations(cases)), count)
    assert [sorted(shard) for shard in turned] == [sorted(shard) for shard in shards]


def test_long_cases_are_shared_out_first() -> None:
    cases = [Timed(name, "", time, known=True) for name, time in [("a", 1), ("b", 1), ("c", 2)]]
    assert [[case.id for case in shard] for shard in split(cases, 2)] == [["c"], ["a", "b"]]


def test_times_come_from_the_baseline_or_are_said_to_be_guessed() -> None:
    cases = [Listed("old", "tests/x.py", 1), Listed("new", "", 2)]
    found = timed(cases, Baseline(30, {"old": 4.5}))
    assert found == [
        Timed("old", "tests/x.py", 4.5, known=True),
        Timed("new", "tests/bench/test_cases.py::test_case[new]", 30, known=False),
    ]
    assert total(found) == 34.5


@pytest.mark.parametrize(
    ("node", "classname", "name", "part"),
    [
        ("tests/x.py", "tests.x", "test_a", True),
        ("tests/x.py", "tests.xy", "test_a", False),
        ("tests/x.py::test_a", "tests.x", "test_a[1-2]", True),
        ("tests/x.py::test_a", "tests.x", "test_ab", False),
        ("tests/x.py::test_a[1]", "tests.x", "test_a[1]", True),
        ("tests/x.py::test_a[1]", "tests.x", "test_a[11]", False),
    ],
)
def test_a_report_names_tests_in_its_own_way(
    node: str, classname: str, name: str, *, part: bool
) -> None:
    assert belongs(node, classname, name) is part
