"""Token buckets against the plain rule they stand for, on a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeClock
from worldline.server.doors.buckets import MAX_BUCKETS, Bucket, Buckets, Rate


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.integers(1, 8))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], rate: int, burst: int) -> None:
    clock = Hand()
    bucket = Bucket(Rate(rate, burst), clock.now())
    taken: list[float] = []
    for pause in pauses:
        clock.time += pause
        wait = bucket.ask(clock)
        assert wait >= 0
        if not wait:
            taken.append(clock.time)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-6


@given(st.floats(0.01, 5), st.integers(1, 5))
def test_who_waits_as_told_is_served(pause: float, burst: int) -> None:
    clock = Hand()
    bucket = Bucket(Rate(2.0, burst), clock.now())
    while not (wait := bucket.ask(clock)):
        pass
    clock.time += min(pause, wait * 0.9)
    assert bucket.ask(clock) > 0
    clock.time += bucket.ask(clock) + 1e-9
    assert bucket.ask(clock) == 0


def test_a_debt_is_paid_in_time_and_nothing_is_lost() -> None:
    clock = Hand()
    bucket = Bucket(Rate(10.0, 5.0), clock.now())
    assert bucket.spend(5, clock) == 0
    assert bucket.spend(10, clock) == 1.0
    clock.time = 1.0
    assert bucket.spend(0, clock) == 0
    clock.time = 1e6
    assert bucket.spend(5, clock) == 0
    assert bucket.spend(1, clock) > 0  # a long pause fills no more than the burst


def test_a_rate_of_0_is_no_limit() -> None:
    bucket = Bucket(Rate(0.0, 0.0), 0.0)
    assert {bucket.ask(Hand()) for _ in range(1000)} == {0.0}
    assert bucket.spend(1e12, Hand()) == 0


def test_looking_takes_nothing_and_addresses_are_apart() -> None:
    buckets = Buckets(Rate(1.0, 1.0), FakeClock())
    assert buckets.empty("a") == buckets.empty("a") == 0
    assert buckets.ask("a") == 0
    assert buckets.ask("a") > 0
    assert buckets.empty("a") > 0
    assert buckets.ask("b") == 0


def test_memory_has_an_end_and_who_knocks_now_is_remembered() -> None:
    buckets = Buckets(Rate(0.001, 1.0), FakeClock())
    assert buckets.ask("flooder") == 0
    for number in range(MAX_BUCKETS + 500):
        buckets.ask(f"address {number}")
        assert buckets.ask("flooder") > 0
    assert len(buckets) == MAX_BUCKETS
