"""The ruler of the browser test, held against pictures that were moved by known amounts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.e2e.motion import LAG, mean_change, median_shift, shift_between


@pytest.fixture
def scenery() -> np.ndarray:
    """A smooth random picture, `96 400`, wider than a view."""
    rough = np.random.default_rng(3).normal(size=(96, 400))
    kernel = np.hanning(13) / np.hanning(13).sum()
    smooth = np.stack([np.convolve(row, kernel, mode="same") for row in rough])
    return 128 + 60 * smooth / smooth.std()


@pytest.mark.parametrize("pixels", [-9, -2, 0, 1, 8])
def test_known_shifts_are_found(scenery: np.ndarray, pixels: int) -> None:
    before, after = scenery[:, 100:260], scenery[:, 100 - pixels : 260 - pixels]
    assert shift_between(before, after) == pytest.approx(pixels, abs=0.3)


def test_a_turn_to_the_left_moves_the_scenery_right(scenery: np.ndarray) -> None:
    turning = np.stack([scenery[:, 200 - 2 * i : 360 - 2 * i] for i in range(24)])
    assert median_shift(turning) == pytest.approx(2 * LAG, abs=0.5)
    still = np.repeat(turning[:1], 24, axis=0)
    assert median_shift(still) == pytest.approx(0, abs=0.1)
    assert mean_change(still) == 0
    assert mean_change(turning) > 10
