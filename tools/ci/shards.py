"""Cases with their estimated times, and how they are split into balanced shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tools.ci.baseline import Baseline
from tools.ci.case_reader import Listed

RUNNER = "tests/bench/test_cases.py::test_case"  # runs the cases that name no test of their own


class Timed(NamedTuple):
    """A case, the pytest node that runs it, and its estimate; not `known`: the default."""

    id: str
    node: str
    seconds: float
    known: bool


def timed(cases: Iterable[Listed], baseline: Baseline) -> list[Timed]:
    """The cases with what the baseline says of them."""
    return [
        Timed(
            case.id,
            case.test or f"{RUNNER}[{case.id}]",
            baseline.seconds.get(case.id, baseline.default_s),
            case.id in baseline.seconds,
        )
        for case in cases
    ]


def split(cases: Sequence[Timed], count: int) -> list[list[Timed]]:
    """`count` shards, together all cases: the longest first, each to the shard with least to do.

    The sums differ by no more than the longest case. The same cases give the same shards in any
    order; within a shard they keep theirs.
    """
    loads, taken = [0.0] * count, dict[str, int]()
    for case in sorted(cases, key=lambda case: (-case.seconds, case.id)):
        shard = loads.index(min(loads))
        loads[shard] += case.seconds
        taken[case.id] = shard
    return [[case for case in cases if taken[case.id] == shard] for shard in range(count)]


def total(cases: Iterable[Timed]) -> float:
    """Seconds of all of them, one after the other."""
    return round(sum(case.seconds for case in cases), 1)
