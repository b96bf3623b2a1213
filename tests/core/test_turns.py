"""The device's turns: order by deadline, fairness under overload, and nobody starves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.turns import HORIZON_S, Turns


def test_the_earliest_deadline_is_first_whoever_asked_first() -> None:
    turns = Turns()
    turns.ask("late", now=0.0, deadline=2.0)
    turns.ask("soon", now=0.5, deadline=1.0)
    assert [turns.next(), turns.next(), turns.next()] == ["soon", "late", None]


def test_asking_again_changes_the_deadline() -> None:
    turns = Turns()
    turns.ask("a", now=0.0, deadline=1.0)
    turns.ask("b", now=0.0, deadline=5.0)
    turns.ask("b", now=0.1, deadline=0.5)
    assert turns.next() == "b"
    assert len(turns) == 1


def test_equal_deadlines_go_to_the_one_served_least_recently() -> None:
    turns = Turns()
    order: list[object] = []
    for round in range(3):
        for id in ("a", "b"):
            turns.ask(id, now=float(round), deadline=round + 1.0)
        order += [turns.next(), turns.next()]
    assert order == ["a", "b"] * 3
    turns.forget("a")
    for id in ("b", "a"):
        turns.ask(id, now=9.0, deadline=10.0)
    assert turns.next() == "a"  # who came back is as one who was never served


def test_who_withdraws_is_not_chosen() -> None:
    turns = Turns()
    turns.ask("a", now=0.0, deadline=1.0)
    turns.withdraw("a")
    turns.withdraw("nobody")
    assert turns.next() is None


def test_claiming_to_be_late_gets_nobody_ahead() -> None:
    turns = Turns()
    turns.ask("honest", now=0.0, deadline=0.5)
    turns.ask("pushy", now=1.0, deadline=-100.0)
    assert turns.next() == "honest"


def simulate(
    sessions: dict[str, tuple[float, float]], *, seconds: float
) -> tuple[Counter[str], dict[str, float]]:
    """Sessions `name: (step_s, slack_s)` that ask again the moment they are done.

    Returns how often each was served, and the longest each waited, in seconds.
    """
    turns, now = Turns(), 0.0
    served: Counter[str] = Counter()
    waits = dict.fromkeys(sessions, 0.0)
    asked = dict.fromkeys(sessions, 0.0)
    for name, (_, slack) in sessions.items():
        turns.ask(name, now=now, deadline=now + slack)
    while now < seconds:
        chosen = turns.next()
        assert isinstance(chosen, str)
        step, slack = sessions[chosen]
        waits[chosen] = max(waits[chosen], now - asked[chosen])
        served[chosen] += 1
        now += step
        asked[chosen] = now
        turns.ask(chosen, now=now, deadline=now + slack)
    return served, waits


def test_under_overload_all_are_served_in_turn() -> None:
    served, _ = simulate(dict.fromkeys("abc", (1.0, 0.0)), seconds=300)
    assert max(served.values()) - min(served.values()) <= 1


def test_a_greedy_session_cannot_starve_one_with_time() -> None:
    """One asks without pause and claims to be late; the other has much lead."""
    served, waits = simulate({"greedy": (0.5, -1e9), "patient": (0.5, 1e9)}, seconds=200)
    assert waits["patient"] <= HORIZON_S + 0.5
    assert served["patient"] >= 200 / (HORIZON_S + 1.0) - 1


@settings(deadline=None)
@given(
    sessions=st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.floats(0.01, 1.0), st.floats(-1e6, 1e6)),
        min_size=1,
    )
)
def test_the_longest_wait_is_bounded(sessions: dict[str, tuple[float, float]]) -> None:
    """By the horizon, one step of each other session, and the one that was already running."""
    served, waits = simulate(sessions, seconds=60)
    bound = HORIZON_S + 2 * sum(step for step, _ in sessions.values())
    assert all(wait <= bound for wait in waits.values())
    assert set(served) == set(sessions)
