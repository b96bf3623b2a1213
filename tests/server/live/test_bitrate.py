"""The bitrate follows the holder: down when it waits, back up when it does not, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worldline.server.live.bitrate import LEAST, Bitrate, Holder, follow

CHUNK_S = 0.75


def run(state: Bitrate, start: float, seconds: float, holder: Holder, *, most: int) -> Bitrate:
    for step in range(round(16 * seconds)):
        state = follow(state, start + step / 16, holder, chunk_s=CHUNK_S, most=most)
    return state


def test_a_holder_that_keeps_up_has_what_was_asked_for() -> None:
    assert run(Bitrate(1000), 0.0, 60.0, Holder(), most=1000).kbps == 1000


def test_a_holder_that_waits_gets_less_and_later_more_again() -> None:
    slow = run(Bitrate(1000), 0.0, 3.0, Holder(age=0.5), most=1000)
    assert 190 <= slow.kbps <= 300, "four falls by a third in three seconds"
    soon = run(slow, 3.0, 1.5, Holder(), most=1000)
    assert soon.kbps == slow.kbps, "two seconds of calm first"
    later = run(slow, 3.0, 30.0, Holder(), most=1000)
    assert later.kbps == 1000


def test_falling_behind_halves_at_once() -> None:
    state = follow(Bitrate(1000), 1.0, Holder(left=1), chunk_s=CHUNK_S, most=1000)
    assert state.kbps == 500
    assert follow(state, 1.1, Holder(left=1), chunk_s=CHUNK_S, most=1000).kbps == 500


def test_a_new_limit_holds_at_once() -> None:
    state = follow(Bitrate(1000), 1.0, Holder(), chunk_s=CHUNK_S, most=300)
    assert state.kbps == 300


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 2.0), st.booleans(), st.integers(50, 9000)),
        max_size=80,
    )
)
def test_it_stays_within_bounds(steps: list[tuple[float, float, bool, int]]) -> None:
    state, now, left = Bitrate(1000), 0.0, 0
    for gap, age, leaves, most in steps:
        now, left = now + gap, left + leaves
        before = state
        state = follow(state, now, Holder(age, left), chunk_s=CHUNK_S, most=most)
        assert min(LEAST, most) <= state.kbps <= most
        if age > CHUNK_S / 4:
            assert state.kbps <= max(before.kbps, LEAST), "never up while the holder waits"
