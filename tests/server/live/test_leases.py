"""When things are due, and that they are done then: properties of leases, keeper and line."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeClock, settle
from worldline.core import errors
from worldline.core.live.client import Camera, Keys, Pad, Pause, Release, Resume, Script
from worldline.core.live.codes import ByeCode, Close, bye, close_of, failure
from worldline.core.live.shared import Action
from worldline.server.live.keeper import keep
from worldline.server.live.leases import Due, Tenancy, Terms, agenda, heard
from worldline.server.live.line import Line

SECONDS = st.floats(0, 10_000).map(lambda value: round(value, 2))
LIMITS = st.one_of(st.just(0.0), st.floats(0.01, 4000).map(lambda value: round(value, 2)))
TERMS = st.builds(
    Terms, idle_s=LIMITS, grace_s=LIMITS, lifetime_s=LIMITS, warn_s=LIMITS, park_s=LIMITS
)
TENANCIES = st.builds(
    Tenancy,
    began=SECONDS,
    heard=SECONDS,
    moving=st.booleans(),
    gone=st.none() | SECONDS,
    waiting=st.none() | SECONDS,
)
HERE = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@given(TERMS, TENANCIES)
def test_nothing_ends_that_was_not_announced(terms: Terms, tenancy: Tenancy) -> None:
    dues = agenda(terms, tenancy)
    assert dues == sorted(dues, key=lambda due: due.at)
    for index, due in enumerate(dues):
        if due.what == "end":
            said = [d for d in dues[:index] if (d.what, d.term) == ("announce", due.term)]
            assert said and said[0].ends == due.at
            assert said[0].at <= due.at


@given(TERMS, TENANCIES)
def test_a_term_that_is_0_ends_nothing_but_a_world_without_grace(
    terms: Terms, tenancy: Tenancy
) -> None:
    ends = {due.term: due.at for due in agenda(terms, tenancy) if due.what == "end"}
    assert ("lifetime" in ends) == (bool(terms.lifetime_s) and tenancy.open)
    assert ("holder_gone" in ends) == (tenancy.gone is not None)
    idle = bool(terms.idle_s) and tenancy.open and not tenancy.moving and tenancy.gone is None
    assert ("idle" in ends) == idle
    if idle:
        assert ends["idle"] == tenancy.heard + terms.idle_s


@given(TENANCIES, SECONDS)
def test_an_input_never_brings_an_end_nearer(tenancy: Tenancy, now: float) -> None:
    for message in (Keys(id=1, held=()), Release(id=1), Pause(id=1), Resume(id=1)):
        now = max(now, tenancy.heard if not isinstance(message, Release) else now)
        assert heard(tenancy, message, now=now, latent_s=0.25).heard >= min(now, tenancy.heard)


def test_what_goes_on_by_itself_counts_until_it_is_over() -> None:
    tenancy = Tenancy(began=0, heard=0)
    ahead: tuple[Action, ...] = ("w",)
    script = Script(id=1, frames=(ahead,) * 40)
    assert heard(tenancy, script, now=5, latent_s=0.25).heard == 15
    path = Camera(id=1, poses=(HERE,) * 64, rate=16)
    assert heard(tenancy, path, now=5, latent_s=0.25).heard == 9
    loop = Camera(id=1, poses=(HERE,) * 64, rate=16, loop=True)
    assert heard(tenancy, loop, now=5, latent_s=0.25).moving
    stick = heard(tenancy, Pad(id=1, z=0.1), now=5, latent_s=0.25)
    assert stick.moving
    assert not heard(stick, Pad(id=2), now=6, latent_s=0.25).moving
    after = heard(heard(tenancy, script, now=5, latent_s=0.25), Release(id=2), now=6, latent_s=1)
    assert after.heard == 6


class At(NamedTuple):
    """Something due."""

    at: float
    name: str


@pytest.mark.anyio
async def test_the_keeper_does_each_thing_once_and_in_order() -> None:
    clock, changed = FakeClock(), asyncio.Event()
    done: list[At] = []
    start = clock.now()
    plan = [At(start + 5, "b"), At(start + 2, "a"), At(start + 2, "a2")]
    keeping = asyncio.create_task(keep(clock, changed, agenda=lambda: plan, act=done.append))
    await settle()
    await clock.advance(1.9)
    assert done == []
    await clock.advance(0.2)
    assert [due.name for due in done] == ["a", "a2"]
    plan.append(At(start + 3, "sooner"))
    changed.set()
    await settle()
    await clock.advance(1)
    assert [due.name for due in done] == ["a", "a2", "sooner"]
    plan.remove(plan[0])
    plan.append(At(start + 50, "later"))  # put off
    await clock.advance(10)
    assert len(done) == 3
    await clock.advance(40)
    assert done[-1].name == "later"
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await settle()
    assert clock.sleeping == []


@given(st.lists(st.tuples(st.sampled_from("jfl"), st.integers(0, 9)), max_size=60))
def test_a_line_keeps_its_order(moves: list[tuple[str, int]]) -> None:
    line, first, others = Line(1000), list[str](), list[str]()
    for move, number in moves:
        name = str(number)
        if move == "l":
            assert line.leave(name) == (name in first + others)
            for part in (first, others):
                if name in part:
                    part.remove(name)
        elif name not in line and move == "j":
            line.join(name)
            others.append(name)
        elif name not in line:
            line.join_first(name)
            first.append(name)
        assert list(line.places()) == first + others
        assert list(line.places().values()) == list(range(1, len(line) + 1))


def test_every_error_closes_with_a_code_of_ours() -> None:
    for kind in errors.error_classes().values():
        error = kind("no", expected=1, got=2)
        code = close_of(error)
        assert 4400 <= code < 5000
        assert code not in (Close.TAKEN_OVER, Close.OVER), kind
        told = failure(error, id=3, fatal=True)
        assert (told.code, told.id, told.expected, told.got) == (error.code, 3, "1", "2")


def test_every_end_has_a_message_and_a_code() -> None:
    for code in get_args(ByeCode):
        assert bye(code).message
        assert 4000 <= close_of(code) < 5000


def test_a_seat_is_tried_again_until_the_world_is_in_host_memory() -> None:
    terms = Terms(idle_s=0, grace_s=0, lifetime_s=0, warn_s=0, park_s=10)
    for tried, at in ((None, 112), (50.0, 112), (112.0, 114), (130.0, 132)):
        dues = agenda(terms, Tenancy(began=0, heard=0, waiting=100.0, tried=tried))
        assert dues == [Due(110, "park"), Due(at, "lend")]


def test_due_things_can_be_told_apart() -> None:
    assert len({Due(1, "park"), Due(1, "lend"), Due(2, "park"), Due(1, "park")}) == 3
