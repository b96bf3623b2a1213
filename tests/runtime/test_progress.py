"""Stamps and who looks at them: what counts as hanging, and what as slow, cold or idle."""

from __future__ import annotations

import pytest

from worldline.runtime.progress import (
    COLD_S,
    FLOOR_S,
    PLACES,
    PREPARING_S,
    SAMPLES,
    SLACK_S,
    WARM_SAMPLES,
    StageTimes,
    Stall,
    Stamps,
    Watch,
    board,
    p99,
)

LOOK_S = 0.1


class Time:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Rig:
    """Ranks that share a board with the one who watches."""

    def __init__(self, ranks: int = 1, *, compiles: bool = False) -> None:
        self.time = Time()
        cells = board(ranks)
        self.ranks = [
            Stamps(cells, rank, compiles=compiles, now=self.time) for rank in range(ranks)
        ]
        self.watch = Watch(cells, ranks)
        self.sent = 0

    def take(self, rank: int = 0) -> None:
        """One call goes to a rank, which takes it up."""
        self.sent += rank == 0
        self.ranks[rank].took()

    def work(self, stage: str, seconds: float, *, where: object = "here") -> None:
        """A whole call of one stage on rank 0."""
        self.take()
        self.ranks[0].begin(stage, str(where))
        self.time.seconds += seconds
        self.ranks[0].wait()

    def until_stall(self, limit_s: float = 2 * COLD_S) -> tuple[float, Stall]:
        """Look again and again; how long it took until somebody was found to hang."""
        looks = 0
        while looks * LOOK_S < limit_s:
            looks += 1
            if (stall := self.watch.look(LOOK_S, self.sent)) is not None:
                return looks * LOOK_S, stall
        raise AssertionError("nobody was found to hang")

    def is_quiet(self, seconds: float) -> bool:
        return not any(self.watch.look(LOOK_S, self.sent) for _ in range(round(seconds / LOOK_S)))


def test_p99() -> None:
    assert p99([5.0]) == 5.0
    assert p99([float(i) for i in range(100)]) == 98.0
    assert p99([1.0] * 199 + [9.0]) == 1.0
    assert p99([1.0] * 98 + [9.0] * 2) == 9.0


def test_a_first_time_may_take_long_and_later_ones_three_times_the_p99() -> None:
    times = StageTimes()
    assert times.allowed_s("a") == COLD_S
    times.note("a", 40.0)  # compiled
    assert times.allowed_s("a") == 120.0 and times.allowed_s("b") == COLD_S
    for _ in range(WARM_SAMPLES):
        times.note("a", 1.0)
    assert times.allowed_s("a") == 3.0, "the first one is forgotten"
    for _ in range(SAMPLES):
        times.note("a", 0.01)
    assert times.allowed_s("a") == FLOOR_S


def test_places_are_forgotten_in_the_end() -> None:
    times = StageTimes()
    for place in range(PLACES + 1):
        times.note(place, 0.1)
    assert times.allowed_s(0) == COLD_S
    assert times.allowed_s(1) == FLOOR_S == times.allowed_s(PLACES)


def test_a_rank_that_waits_may_wait_for_ever() -> None:
    rig = Rig()
    assert rig.is_quiet(5 * COLD_S)
    rig.work("denoise", 0.1)
    assert rig.is_quiet(5 * COLD_S)


def test_but_not_while_a_call_waits_for_it() -> None:
    rig = Rig()
    rig.is_quiet(60)
    rig.sent += 1
    took_s, stall = rig.until_stall()
    assert took_s <= FLOOR_S and stall.rank == 0 and "waiting" in str(stall)


def test_a_stage_that_hangs_is_found_within_its_limit() -> None:
    rig = Rig()
    for _ in range(WARM_SAMPLES + 1):
        rig.work("denoise", 0.02)
    rig.take()
    rig.ranks[0].begin("denoise", "here")
    took_s, stall = rig.until_stall()
    assert FLOOR_S - SLACK_S <= took_s <= FLOOR_S
    assert (stall.rank, stall.stage) == (0, "denoise")


def test_a_slow_stage_has_three_times_what_it_takes() -> None:
    rig = Rig()
    for _ in range(WARM_SAMPLES + 1):
        rig.work("denoise", 5.0)
    rig.take()
    rig.ranks[0].begin("denoise", "here")
    took_s, _ = rig.until_stall()
    assert 15.0 - SLACK_S <= took_s <= 15.0


def test_every_place_has_limits_of_its_own() -> None:
    """A picture is encoded in the first chunk and hardly ever after: both are known."""
    rig = Rig()
    for _ in range(40):
        rig.work("encode", 4.0, where="chunk 0")
        for _ in range(20):
            rig.work("encode", 0.001, where="chunk 9")
    rig.take()
    rig.ranks[0].begin("encode", "chunk 0")
    assert rig.is_quiet(11.0)
    rig.ranks[0].begin("encode", "chunk 9")
    took_s, _ = rig.until_stall()
    assert took_s <= FLOOR_S


def test_a_cold_stage_is_waited_for_but_not_for_ever() -> None:
    rig = Rig()
    rig.take()
    rig.ranks[0].begin("denoise")
    assert rig.is_quiet(COLD_S - 1)
    assert rig.until_stall()[1].stage == "denoise"


@pytest.mark.parametrize("compiles", [False, True])
def test_a_first_time_is_like_its_kin_where_nothing_is_compiled(compiles: bool) -> None:
    rig = Rig(compiles=compiles)
    for where, seconds in (("chunk 0", 0.5), ("chunk 1", 0.02)):
        rig.take()
        rig.ranks[0].begin("step", where, kin="small")
        rig.ranks[0].enter("denoise")
        rig.time.seconds += seconds
        rig.ranks[0].wait()
    for kin, limit_s in (("small", 5.0), ("large", COLD_S), (None, COLD_S)):
        rig.take()
        rig.ranks[0].begin("step", f"chunk 2 of {kin}", kin=kin)
        rig.ranks[0].enter("denoise")
        took_s, _ = rig.until_stall()
        expected = COLD_S if compiles else limit_s
        assert expected - SLACK_S <= took_s <= expected


def test_a_call_that_may_take_long_each_time() -> None:
    """A film's turns, a rewind: quick ones say nothing of the next."""
    rig = Rig()
    for _ in range(WARM_SAMPLES + 1):
        rig.take()
        rig.ranks[0].begin("film", patient=True)
        rig.ranks[0].enter("denoise")
        rig.time.seconds += 0.01
        rig.ranks[0].wait()
    rig.take()
    rig.ranks[0].begin("film", patient=True)
    rig.ranks[0].enter("denoise")
    assert rig.is_quiet(COLD_S - 1)
    rig.ranks[0].wait()
    rig.work("denoise", 0.1, where="a chunk's")
    rig.take()
    rig.ranks[0].begin("denoise", "a chunk's")
    assert rig.until_stall()[0] <= FLOOR_S


def test_what_is_prepared_between_two_chunks_has_more_time() -> None:
    rig = Rig()
    for _ in range(WARM_SAMPLES + 1):
        rig.work("preparing", 0.01)
    rig.take()
    rig.ranks[0].begin("preparing", "here")
    took_s, _ = rig.until_stall()
    assert PREPARING_S - SLACK_S <= took_s <= PREPARING_S


def test_a_beat_is_progress() -> None:
    rig = Rig()
    for _ in range(WARM_SAMPLES + 1):
        rig.work("denoise", 0.01)
    rig.take()
    rig.ranks[0].begin("denoise", "here")
    for _ in range(20):
        assert rig.is_quiet(1.0)
        rig.ranks[0].beat()


def test_the_rank_that_stopped_first_is_named() -> None:
    rig = Rig(3)
    for stamps in rig.ranks:
        for _ in range(WARM_SAMPLES + 1):
            stamps.begin("denoise")
            rig.time.seconds += 0.01
            stamps.wait()
    for rank in range(3):
        rig.take(rank)
        rig.ranks[rank].begin("denoise")
    rig.ranks[0].fed()
    rig.is_quiet(0.5)
    for rank in (0, 2):  # get on a little, and then wait for rank 1
        rig.ranks[rank].beat()
    assert rig.until_stall()[1].rank == 1


def test_a_rank_that_does_not_take_up_what_rank_0_said() -> None:
    rig = Rig(2)
    rig.take(0)
    rig.ranks[0].fed()
    rig.ranks[0].wait()
    took_s, stall = rig.until_stall()
    assert took_s <= FLOOR_S and stall.rank == 1


@pytest.mark.parametrize("stage", ["", "something new"])
def test_a_stage_without_a_name_here(stage: str) -> None:
    rig = Rig()
    for _ in range(3):
        rig.work(stage, 0.1)
    rig.take()
    rig.ranks[0].begin(stage, "here")
    assert rig.until_stall()[1].stage == "another call"
