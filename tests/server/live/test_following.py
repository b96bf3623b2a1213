"""How a viewer follows: bounded whatever the reader does, and never an old picture."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worldline.server.live.following import (
    MOST_PENALTY_S,
    MOST_PICTURES,
    PROBE_S,
    Following,
    Pace,
    Turn,
    Unit,
)
from worldline.server.live.idr import FORCED_S, PLEA_S, SCHEDULED_S, KeyFrames, Pleas, decide, plead

PACE = Pace(chunk_s=0.75, ahead=40)
BYTES = 1000


def unit(number: int, *, key: bool = False, chained: bool = True) -> Unit:
    return Unit(number, "h264" if chained else "jpeg", key or not chained, bytes(BYTES), b"")


def streaming() -> Following:
    """A viewer of H.264 that has had its first key frame."""
    following = Following(chained=True, pace=PACE)
    following.offer(unit(0, key=True), 0.0)
    taken = following.take(0.0)
    assert isinstance(taken, Unit)
    following.wrote(0, 0.0)
    return following


def test_a_stream_is_entered_at_a_key_frame_and_urgently() -> None:
    following = Following(chained=True, pace=PACE)
    assert following.urgent
    following.offer(unit(3), 0.0)
    assert following.take(0.0) is Turn.STILL, "until then there are stills"
    following.wrote(3, 0.01)
    following.offer(unit(4, key=True), 0.1)
    assert not following.urgent
    assert following.take(0.1) == unit(4, key=True)


def test_more_than_a_chunk_behind_means_stills_of_the_newest() -> None:
    following = streaming()
    for number in range(1, 15):
        following.offer(unit(number), number / 16)
    assert following.behind and len(following) == 0 and following.left == 1
    assert following.take(1.0) is Turn.STILL
    following.wrote(14, 5.0)
    assert following.take(6.0) is Turn.WAIT, "nothing newer has come"
    assert not following.patient(6.0), "a still took longer than a chunk: too slow to come back"
    following.offer(unit(15, key=True), 6.0)
    assert following.behind


def test_a_viewer_that_keeps_up_again_comes_back_at_a_key_frame() -> None:
    following = streaming()
    for number in range(1, 15):
        following.offer(unit(number), number / 16)
    assert following.take(1.0) is Turn.STILL
    following.wrote(14, 0.1)
    assert not following.patient(1.1) and following.patient(4.0)
    following.offer(unit(60), 4.0)
    assert following.behind, "not at a picture that needs the ones before it"
    following.offer(unit(61, key=True), 4.1)
    following.offer(unit(62), 4.2)
    assert not following.behind
    assert [following.take(4.2), following.take(4.2)] == [unit(61, key=True), unit(62)]


def test_an_old_queue_is_never_sent_even_if_nothing_was_offered_meanwhile() -> None:
    following = streaming()
    following.offer(unit(1), 0.0)
    assert following.take(600.0) is Turn.STILL


def test_each_relapse_waits_longer() -> None:
    following, now, number = streaming(), 0.0, 0
    waits: list[float] = []
    for _ in range(7):
        for _ in range(14):
            number, now = number + 1, now + 1 / 16
            following.offer(unit(number), now)
        assert following.behind
        assert following.take(now) is Turn.STILL
        following.wrote(number, 0.01)
        began = now
        while not following.patient(now):
            now += 0.25
        waits.append(now - began)
        number += 1
        following.offer(unit(number, key=True), now)
        assert isinstance(following.take(now), Unit)
    assert waits == sorted(waits) and waits[0] < waits[3] <= MOST_PENALTY_S


def test_an_unchained_viewer_skips_to_the_newest() -> None:
    following = Following(chained=False, pace=PACE)
    for number in range(20):
        following.offer(unit(number, chained=False), number / 16)
    assert following.behind
    assert following.take(2.0) is Turn.STILL
    following.wrote(19, 0.1)
    following.offer(unit(20, chained=False), 2.1)
    assert following.take(2.1) == unit(20, chained=False)


def test_what_was_sent_and_not_shown_counts() -> None:
    following = streaming()
    following.shown(0)
    for number in range(1, 60):
        now = number / 16
        following.offer(unit(number), now)
        taken = following.take(now)
        if isinstance(taken, Unit):
            following.wrote(taken.number, 0.0)
    assert following.behind, "the network swallows everything and nothing reaches the screen"
    taken = [following.take(10.0 + step / 10) for step in range(30)]
    assert taken.count(Turn.STILL) <= 30 / 10 / PROBE_S + 1
    following.wrote(59, 0.01)
    following.shown(59)
    following.offer(unit(90, key=True), 20.0)
    assert not following.behind


def test_reports_about_the_stream_before_do_not_count() -> None:
    following = Following(chained=True, pace=PACE)
    following.shown(999)
    for number in range(1000, 1010):
        now = number / 16
        following.offer(unit(number, key=number == 1000), now)
        assert following.take(now) == unit(number, key=number == 1000)
        following.wrote(number, 0.0)
        following.shown(number - 1)
    assert not following.behind


def test_without_reports_nothing_is_held_back() -> None:
    following = streaming()
    for number in range(1, 400):
        following.offer(unit(number), number / 16)
        taken = following.take(number / 16)
        assert isinstance(taken, Unit)
        following.wrote(taken.number, 0.0)


def test_a_decoder_that_cries_all_the_time_is_urgent_once() -> None:
    following = streaming()
    following.lost(10.0)
    assert following.urgent and following.behind
    following.offer(unit(5, key=True), 10.1)
    following.lost(10.2)
    assert not following.urgent and not following.patient(10.2) and following.patient(14.3)
    following.lost(10.1 + PLEA_S)
    assert following.urgent


def test_an_urgent_viewer_that_cannot_read_forces_one_key_frame_only() -> None:
    following = Following(chained=True, pace=PACE)
    following.saw(5)
    assert following.take(0.0) is Turn.STILL
    following.wrote(5, 3.0)
    assert following.urgent
    following.offer(unit(6, key=True), 3.0)
    assert following.behind and not following.urgent


class AnyReader(RuleBasedStateMachine):
    """Pictures come, a reader takes them when it likes, time passes as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = -1
        self.following = Following(chained=True, pace=PACE)
        self.offered: dict[int, float] = {}
        self.decodes = -1  # the last picture after which the next one can be decoded
        self.in_hand: tuple[int, float] | None = None

    @rule(seconds=st.sampled_from([0.0, 1 / 16, 0.3, 1.0, 7.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.booleans())
    def a_picture_comes(self, key: bool) -> None:
        self.number += 1
        self.offered[self.number] = self.now
        self.following.offer(unit(self.number, key=key), self.now)

    @rule(count=st.integers(1, 200))
    def a_burst_comes(self, count: int) -> None:
        for _ in range(count):
            self.a_picture_comes(False)

    @precondition(lambda self: self.in_hand is None)
    @rule()
    def the_writer_takes(self) -> None:
        taken = self.following.take(self.now)
        if isinstance(taken, Unit):
            assert self.now - self.offered[taken.number] <= PACE.chunk_s, "an old picture"
            assert taken.key or taken.number == self.decodes + 1, "cannot be decoded"
            self.decodes = taken.number
            self.in_hand = (taken.number, self.now)
        elif taken is Turn.STILL:
            self.in_hand = (self.number, self.now)

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def the_write_ends(self) -> None:
        assert self.in_hand is not None
        number, began = self.in_hand
        self.following.wrote(number, self.now - began)
        self.in_hand = None

    @rule(number=st.integers(0, 5000))
    def the_client_reports(self, number: int) -> None:
        self.following.shown(number)

    @rule()
    def the_decoder_is_lost(self) -> None:
        self.following.lost(self.now)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.following) <= MOST_PICTURES
        assert self.following.queued_bytes == BYTES * len(self.following)
        assert not (self.following.behind and len(self.following))


TestAnyReader = AnyReader.TestCase
TestAnyReader.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

moments = st.lists(
    st.tuples(st.floats(0.01, 1.5), st.booleans(), st.booleans()), min_size=1, max_size=200
)


@given(moments)
def test_key_frames_are_rare_and_come(pictures: list[tuple[float, bool, bool]]) -> None:
    state, now, last = KeyFrames(), 0.0, float("-inf")
    forced: list[float] = []
    urgent_since: float | None = None
    for gap, urgent, patient in pictures:
        now += gap
        if urgent and urgent_since is None:
            urgent_since = now
        before = state
        state, key = decide(state, now, urgent=urgent_since is not None, patient=patient)
        if before.last is None:
            assert key, "the first picture of a stream stands alone"
        elif key and state.forced == now:
            forced.append(now)
        elif key:
            assert now - last >= SCHEDULED_S - 1e-9
            assert urgent_since is not None or patient, "nobody waits, nobody pays"
        if urgent_since is not None and not key:
            assert now - urgent_since < FORCED_S, "who sees nothing waits a second at most"
        if key:
            last, urgent_since = now, None
    assert all(b - a >= FORCED_S - 1e-9 for a, b in pairwise(forced))


@given(st.lists(st.floats(0.0, 20.0), max_size=100))
def test_pleas_are_urgent_once_in_five_seconds(gaps: list[float]) -> None:
    state, now, heard = Pleas(), 0.0, []
    for gap in gaps:
        now += gap
        state, urgent = plead(state, now)
        if urgent:
            heard.append(now)
    assert all(b - a >= PLEA_S for a, b in pairwise(heard))
