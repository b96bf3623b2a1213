"""Step tables against published numbers; the recorded tables are in tests/parity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.errors import ConfigError
from worldline.sampling.schedules import (
    Schedule,
    euler_schedule,
    official_schedule,
    official_table,
    shifted_twice_schedule,
    thinned,
    warped_schedule,
    warped_table,
)

V1, V2 = [0, 179, 358, 679], [0, 250, 500, 750]


# Shift, indices, timesteps, sigmas for x0, sigmas for the next noise.
PUBLISHED = [
    (
        10,
        V1,
        (999, 978, 947, 825),
        (0.9999, 0.97897, 0.94791, 0.82585),
        (0.97883, 0.94769, 0.82519),
    ),
    (
        10,
        V2,
        (999, 967, 908, 768),
        (0.9999, 0.96795, 0.90893, 0.76899),
        (0.96778, 0.90859, 0.76804),
    ),
    (5, V2, (999, 937, 833, 624), (0.9998, 0.93789, 0.83361, 0.62469), (0.93758, 0.83306, 0.62469)),
]


@pytest.mark.parametrize(("shift", "indices", "timesteps", "x0", "again"), PUBLISHED)
def test_the_official_tables(
    shift: float,
    indices: list[int],
    timesteps: tuple[int, ...],
    x0: tuple[float, ...],
    again: tuple[float, ...],
) -> None:
    schedule = official_schedule(shift, indices)
    assert schedule.timesteps == timesteps
    assert all(isinstance(t, int) for t in schedule.timesteps)
    assert schedule.sigma_x0 == pytest.approx(x0, abs=1e-5)
    assert schedule.sigma_renoise == pytest.approx(again, abs=1e-5)


@given(st.floats(0.2, 30), st.lists(st.integers(0, 999), min_size=1, max_size=8, unique=True))
@settings(max_examples=60, deadline=None)
def test_both_look_ups_find_an_entry_of_the_same_timestep(shift: float, picks: list[int]) -> None:
    table = official_table(shift)
    schedule = official_schedule(shift, sorted(picks))
    for t, sigma in zip(schedule.timesteps, schedule.sigma_x0, strict=True):
        twins = np.flatnonzero(table.timesteps == t)
        assert sigma == table.sigmas[twins[0]]
    for t, sigma in zip(schedule.timesteps[1:], schedule.sigma_renoise, strict=True):
        twins = np.flatnonzero(table.timesteps == t)
        assert sigma == table.sigmas[twins[:2][-1]]
        assert sigma <= schedule.sigma_x0[schedule.timesteps.index(t)]


@pytest.mark.parametrize("count", [4, 40, 70, 1000])
def test_the_official_table_falls_to_zero(count: int) -> None:
    table = official_table(10, count)
    assert len(table.timesteps) == count
    assert len(table.sigmas) == count + 1
    assert table.sigmas[-1] == 0
    assert (np.diff(table.sigmas) < 0).all()
    assert (table.timesteps == np.trunc(1000 * table.sigmas[:-1].astype(np.float64))).mean() > 0.99


@pytest.mark.parametrize(
    ("shift", "steps", "timesteps"),
    [
        (10, [1000, 821, 642, 321], (1000, 978.66, 947.18, 825.40)),
        (5, [1000, 750, 500, 250], (1000, 937.5, 833.33, 625)),
        (1, [1000, 1], (1000, 1)),
    ],
)
def test_the_warped_tables(shift: float, steps: list[int], timesteps: tuple[float, ...]) -> None:
    schedule = warped_schedule(shift, steps)
    assert schedule.timesteps == pytest.approx(timesteps, abs=5e-3)
    assert schedule.sigma_x0 == pytest.approx([t / 1000 for t in timesteps], abs=5e-6)
    assert schedule.sigma_renoise == schedule.sigma_x0[1:]
    assert len(warped_table(shift).sigmas) == 1000


def test_euler_steps_are_even_before_the_shift() -> None:
    assert euler_schedule(1, 4) == Schedule(
        (1000, 750, 500, 250), (1, 0.75, 0.5, 0.25), (0.75, 0.5, 0.25)
    )
    assert euler_schedule(5, 4).sigma_x0 == pytest.approx((1, 0.9375, 0.833333, 0.625), abs=1e-6)
    assert euler_schedule(3, 1) == Schedule((1000,), (1,), ())


def test_the_twice_shifted_steps_end_close_to_zero() -> None:
    schedule = shifted_twice_schedule(3, 8)
    assert schedule.timesteps[0] == 1000
    assert schedule.timesteps[-1] == pytest.approx(8.92857, abs=1e-4)
    assert schedule.sigma_renoise == schedule.sigma_x0[1:]


@pytest.mark.parametrize("shift", [0, -1, math.nan, math.inf])
def test_a_shift_that_is_not_positive_is_refused(shift: float) -> None:
    for call in (official_table, warped_table):
        with pytest.raises(ConfigError, match="shift"):
            call(shift)
    for build in (euler_schedule, shifted_twice_schedule):
        with pytest.raises(ConfigError, match="shift"):
            build(shift, 4)


@pytest.mark.parametrize("indices", [[], [3, 3], [5, 2], [-1, 4], [0, 1000]])
def test_steps_out_of_order_or_range_are_refused(indices: list[int]) -> None:
    with pytest.raises(ConfigError, match="steps"):
        official_schedule(10, indices)
    with pytest.raises(ConfigError, match="steps"):
        warped_schedule(10, [1000 - i for i in indices])


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_a_step_count_out_of_range_is_refused(count: int) -> None:
    for build in (euler_schedule, shifted_twice_schedule):
        with pytest.raises(ConfigError, match="count"):
            build(5, count)


def test_fewer_steps_are_some_of_the_schedule_and_fit_together() -> None:
    full = warped_schedule(5, [1000, 750, 500, 250])
    for count, chosen in ((1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])):
        few = thinned(full, count)
        assert few.timesteps == tuple(full.timesteps[i] for i in chosen)
        assert few.sigma_x0 == tuple(full.sigma_x0[i] for i in chosen)
        assert few.sigma_renoise == few.sigma_x0[1:]
    assert thinned(full, 9) is full
    with pytest.raises(ConfigError, match="count"):
        thinned(full, 0)
