"""Recorded passes, and sessions that go back or branch, on two ranks."""

from __future__ import annotations

from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from tests.runtime.parallel.cases import Size, Walked
from tests.runtime.test_graphs import graphed
from worldline.runtime.parallel.group import Group

SIZE = Size(48, 16, 3)  # 9 tokens: uneven


def test_recorded_passes_give_the_bits_of_plain_ones() -> None:
    """One graph per fill level, kind and ring on each rank, collectives in it."""

    def run(group: Group, record: bool) -> tuple[Walked, int]:
        world = cases.world(group)
        built = 0
        if record:
            world, passes = graphed(world)
        walked = cases.walk(cases.begin(world, SIZE), 3)
        if record:
            built = passes.built  # pyright: ignore[reportPossiblyUnboundVariable]
        return walked, built

    plain = on_ranks(2, lambda group: run(group, False))
    recorded = on_ranks(2, lambda group: run(group, True))
    for (walked, built), (wanted, _) in zip(recorded, plain, strict=True):
        assert built > 0 and cases.farthest(walked, wanted) == 0


def test_a_session_goes_back_and_branches_on_all_ranks() -> None:
    """From the start on, context passes over what was walked leave the bits that were there."""

    def run(group: Group) -> tuple[Walked, Walked, Walked]:
        session = cases.begin(cases.world(group), SIZE)
        there = cases.walk(session, 2)
        session.rewind(chunk=1)
        again = cases.walk(session, 1, start=1)
        (branch,) = session.branch(1)
        return there, again, cases.walk(branch, 1, start=2)

    alone = cases.walk(cases.begin(cases.world(), SIZE), 3)
    for there, again, branch in on_ranks(2, run):
        assert cases.farthest(there, again) == 0
        assert len(branch.latents) == 3 and cases.farthest(alone, branch) <= 1e-5
