"""Eight-bit rows: rounding is to nearest, the error is bounded, odd rows do not break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.quant.rows import E4M3, Rows, from_rows, to_e4m3, to_int8

Quantise = Callable[[torch.Tensor], Rows]
BOTH = pytest.mark.parametrize("quantise", [to_e4m3, to_int8])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.floats(-20, 20))
@settings(max_examples=30, deadline=None)
def test_every_value_is_as_near_as_eight_bits_allow(seed: int, exponent: float) -> None:
    x = noise(5, 64, seed=seed) * 2.0**exponent
    peak = x.abs().amax(-1, keepdim=True)
    steps = (from_rows(to_int8(x), torch.float32) - x).abs() * 127 / peak
    assert steps.max() <= 0.5 + 1e-4
    floats = (from_rows(to_e4m3(x), torch.float32) - x).abs()
    # Three mantissa bits: half a step is 2^-4 of the value; below 2^-6 the steps are even.
    assert (floats <= torch.maximum(x.abs() * 2**-4, peak / 448 * 2**-10) * 1.001).all()


def test_e4m3_rounds_as_torch_rounds_and_holds_the_largest_value() -> None:
    x = noise(3, 32)
    values, scale = to_e4m3(x)
    assert values.dtype == E4M3 and scale.dtype == torch.float32 and scale.shape == (3, 1)
    assert torch.equal(values.float(), (x / scale).to(E4M3).float())
    assert torch.equal(values.float().abs().amax(-1), torch.full((3,), 448.0))


@BOTH
def test_rows_do_not_see_each_other(quantise: Quantise) -> None:
    x = noise(2, 3, 16)
    alone = [from_rows(quantise(row), torch.float32) for row in x.flatten(0, 1)]
    together = from_rows(quantise(x), torch.float32).flatten(0, 1)
    assert torch.equal(torch.stack(alone), together)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_and_extremes_stay_finite(quantise: Quantise, dtype: torch.dtype) -> None:
    rows = torch.tensor([[0.0, 0.0], [1e-38, 0.0], [3e38, -3e38], [1.0, -2.0]], dtype=dtype)
    back = from_rows(quantise(rows), torch.float32)
    assert torch.isfinite(back).all()
    assert torch.equal(back[0], torch.zeros(2))
    torch.testing.assert_close(back[2:], rows[2:].float(), rtol=2**-4, atol=0)


def test_int8_errs_less_than_e4m3_on_rows_without_outliers() -> None:
    x = noise(64, 128)
    errors = [
        (from_rows(q(x), torch.float32) - x).square().mean().sqrt() for q in (to_int8, to_e4m3)
    ]
    assert errors[0] < 0.3 * errors[1]


def test_the_input_is_left_alone() -> None:
    x = noise(4, 8)
    before = x.clone()
    to_e4m3(x)
    to_int8(x)
    assert torch.equal(x, before)
