"""When chunks start, are begun anew or are made cheaper: the governor told the time by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.config import Lever
from worldline.server.live.governor import PATIENCE, SETTLED, Cost, Governor, Recent
from worldline.server.live.playout import ENOUGH, GROWTH, MARGIN_S, Playout

FPS, CHUNK_S, FRAMES = 16.0, 0.75, 12
LEAD_S = 0.1


def playout() -> Playout:
    return Playout(FPS, CHUNK_S)


def governor(*, restart_s: float = 0.0, levers: tuple[Lever, ...] = ()) -> Governor:
    return Governor(playout(), chunk_s=CHUNK_S, lead_s=LEAD_S, restart_s=restart_s, levers=levers)


def cost(need: float, encode: float = 0.1) -> Cost:
    return Cost(need=need, work=need, encode=encode)


def test_quantiles_are_of_the_newest_and_by_nearest_rank() -> None:
    recent = Recent(100)
    assert (recent.quantile(0.99), recent.mean()) == (0.0, 0.0)
    for value in range(1, 201):
        recent.add(float(value))
    assert [recent.quantile(q) for q in (0.0, 0.5, 0.99, 1.0)] == [101.0, 150.0, 199.0, 200.0]
    assert (recent.mean(), recent.mean(2)) == (150.5, 199.5)


class TestPlayout:
    def test_pictures_play_one_after_another_from_when_they_were_shown(self) -> None:
        screen = playout()
        assert screen.dry_at() is None
        assert screen.shown(0, 9, 100.0) == 0.0
        assert screen.dry_at() == 100.0 + 9 / FPS
        assert screen.shown(9, 21, 100.3) == 0.0
        assert screen.lead_s(100.5) == pytest.approx(21 / FPS - 0.5)

    def test_pictures_that_come_when_the_queue_is_dry_are_late_and_play_at_once(self) -> None:
        screen = playout()
        screen.shown(0, 8, 100.0)
        assert screen.shown(8, 16, 101.0) == pytest.approx(0.5)
        assert screen.dry_at() == 101.5

    def test_a_report_says_what_is_really_on_screen(self) -> None:
        screen = playout()
        screen.shown(0, 16, 100.0)
        screen.report(4, 0, 100.5)
        assert screen.dry_at() == 100.5 + 12 / FPS

    def test_a_report_of_what_was_never_sent_is_none(self) -> None:
        screen = playout()
        screen.report(0, 0, 99.0)
        screen.shown(0, 16, 100.0)
        screen.report(16, 9, 100.1)
        assert screen.dry_at() == 101.0

    def test_stalls_widen_the_margin_and_calm_narrows_it(self) -> None:
        screen = playout()
        screen.shown(0, 16, 100.0)
        screen.report(1, 3, 100.0)  # stalls of before count for nothing
        assert screen.margin_s == MARGIN_S
        screen.report(2, 4, 100.1)
        screen.chunk()
        assert screen.margin_s == MARGIN_S * GROWTH
        for _ in range(40):
            screen.chunk()
        assert screen.margin_s == pytest.approx(MARGIN_S * ENOUGH, rel=0.05)  # not where it stood
        for _ in range(1000):
            screen.chunk()
        assert screen.margin_s == MARGIN_S  # the way may have become better
        for stalls in range(5, 99):
            screen.report(2, stalls, 100.2)
        assert screen.margin_s == CHUNK_S
        screen.leave()
        assert screen.margin_s == MARGIN_S

    def test_standing_still_because_we_were_late_widens_nothing(self) -> None:
        screen = playout()
        screen.shown(0, 16, 100.0)
        screen.report(1, 0, 100.0)
        screen.report(15, 1, 101.5)  # our own books say that it had run dry by then
        screen.shown(16, 28, 102.0)
        screen.report(17, 2, 102.1)
        assert screen.margin_s == MARGIN_S
        screen.report(18, 3, 102.2)  # plenty was on its way, and none was there
        assert screen.margin_s == MARGIN_S * GROWTH

    def test_after_a_pause_the_screen_begins_anew(self) -> None:
        screen = playout()
        screen.shown(0, 16, 100.0)
        screen.stop()
        assert (screen.dry_at(), screen.lead_s(100.0)) == (None, 0.0)
        assert screen.shown(16, 28, 500.0) == 0.0
        assert screen.dry_at() == 500.75


def settled(needs: list[float]) -> Governor:
    """A governor that knows these costs, with a second of video queued from 100 on."""
    known = governor()
    for need in needs:
        known.finished(cost(need))
    known.shown(0, 16, 100.0)
    return known


def test_without_figures_a_chunk_is_thought_to_take_as_long_as_it_plays() -> None:
    new = governor()
    assert new.start_at(5.0) == 5.0  # nothing is on screen
    new.shown(0, 16, 100.0)
    new.finished(cost(0.1), counts=False)  # the first chunk is no measure
    assert new.start_at(100.0) == pytest.approx(101.0 - LEAD_S - MARGIN_S - CHUNK_S)


def test_what_is_made_counts_before_it_is_shown() -> None:
    known = settled([0.2])
    known.playout.made(28)
    assert known.start_at(100.0) == pytest.approx(101.75 - LEAD_S - MARGIN_S - 0.2)
    assert known.deadline(100.0) == 101.75
    assert known.playout.lead_s(100.0) == 1.0
    known.shown(16, 28, 101.5)  # though the screen ran dry before it
    assert known.misses == 1


def test_a_chunk_starts_as_late_as_its_p99_allows() -> None:
    known = settled([0.2] * 99 + [0.4])
    assert known.start_at(100.0) == pytest.approx(101.0 - LEAD_S - MARGIN_S - 0.2)
    for _ in range(2):
        known.finished(cost(0.4))
    assert known.start_at(100.0) == pytest.approx(101.0 - LEAD_S - MARGIN_S - 0.4)
    assert known.deadline(100.0) == 101.0


def test_others_on_the_device_are_allowed_for() -> None:
    known = governor()
    for _ in range(9):
        known.finished(Cost(need=0.35, work=0.35, encode=0.0, waited=0.15))
    known.shown(0, 16, 100.0)
    full = 101.0 - LEAD_S - MARGIN_S
    starts = [known.start_at(100.0, others_s=others) for others in (0.0, 0.1, 0.3, 9.0)]
    assert starts == pytest.approx([full - 0.35, full - 0.35, full - 0.5, full - CHUNK_S])


def test_the_lead_that_is_asked_for_is_kept() -> None:
    known = settled([0.2])
    known.lead_s = 0.5
    assert known.start_at(100.0) == pytest.approx(101.0 - 0.5 - MARGIN_S - 0.2)


def test_one_hiccup_does_not_grow_the_queue_beyond_a_chunk() -> None:
    assert settled([30.0]).start_at(100.0) == pytest.approx(101.0 - LEAD_S - MARGIN_S - CHUNK_S)


def test_too_slow_a_device_starts_at_once_always() -> None:
    slow, now = governor(), 100.0
    for index in range(5):
        assert slow.start_at(now) <= now
        now += 1.0
        slow.shown(index * FRAMES, (index + 1) * FRAMES, now)
        slow.finished(cost(1.0), counts=index > 0)
    assert slow.misses == 4
    assert slow.real_time_factor == pytest.approx(1.0 / CHUNK_S)


def test_a_miss_is_counted_once_a_chunk() -> None:
    late = governor()
    late.shown(0, 4, 100.0)
    for number in range(4, 16, 4):
        late.shown(number, number + 4, 100.0 + number)
    late.finished(cost(3.0))
    late.shown(16, 20, 200.0)
    assert late.misses == 2


@pytest.mark.parametrize(
    ("restart_s", "started", "now", "may"),
    [
        (0.0, 100.0, 100.0, False),  # a setting, off unless asked for
        (0.05, 100.0, 100.04, True),  # just begun: little is lost
        (0.05, 100.0, 100.5, True),  # still in time for the queue's end at 101
        (0.05, 100.0, 100.9, False),
    ],
)
def test_a_chunk_is_begun_anew_when_it_costs_little(
    restart_s: float, started: float, now: float, may: bool
) -> None:
    known = governor(restart_s=restart_s)
    known.finished(cost(0.3))
    known.shown(0, 16, 100.0)
    assert known.may_restart(started, now) is may


@pytest.mark.parametrize("order", [("steps", "encode_quality"), ("encode_quality", "steps")])
def test_levers_are_pulled_in_their_order_and_let_go_in_reverse(order: tuple[Lever, ...]) -> None:
    eager = governor(levers=order)
    seen: list[tuple[Lever, ...]] = []
    for _ in range(2 * PATIENCE + 2):
        eager.finished(cost(0.9))
        seen.append(eager.levers)
    assert [len(levers) for levers in seen] == [1, 1, 2, 2, 2, 2]
    assert (seen[0], seen[-1]) == (order[:1], order)
    for pulled in (1, 0):
        for _ in range(SETTLED + PATIENCE):
            eager.finished(cost(0.3))
            if len(eager.levers) == pulled:
                break
        assert len(eager.levers) == pulled
    assert eager.levers == ()


def test_between_behind_and_spare_levers_stay_as_they_are() -> None:
    steady = governor(levers=("encode_quality",))
    for _ in range(2):
        steady.finished(cost(0.9))
    for _ in range(40):
        steady.finished(cost(0.65))
    assert steady.levers == ("encode_quality",)


def test_quality_is_not_given_up_for_nothing() -> None:
    slow = governor(levers=("encode_quality",))
    for _ in range(9):
        slow.finished(cost(0.9, encode=0.01))
    assert slow.levers == ()


def test_a_world_without_levers_has_none_to_pull() -> None:
    slow = governor()
    for _ in range(9):
        slow.finished(cost(9.0))
    assert slow.levers == ()


@settings(deadline=None)
@given(
    times=st.lists(st.tuples(st.floats(0.01, 0.6), st.floats(0.0, 0.05)), min_size=1, max_size=60)
)
def test_the_queue_never_grows_beyond_what_is_asked_for(times: list[tuple[float, float]]) -> None:
    """Chunks of any length below a chunk's playing time, waits that wake a little late."""
    world, now, number = governor(), 100.0, 0
    for index, (need, oversleep) in enumerate(times):
        start = world.start_at(now)
        now = now if start <= now else start + oversleep
        now += need
        world.shown(number, number + FRAMES, now)
        world.finished(cost(need), counts=index > 0)
        number += FRAMES
        assert world.playout.lead_s(now) <= LEAD_S + 2 * CHUNK_S + world.playout.margin_s
