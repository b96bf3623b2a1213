"""The kernel that quantises rows gives the bits of its oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.interpreter import Interpreter
from worldline.kernels.rows import e4m3_rows, quantises
from worldline.quant.rows import E4M3, E4M3_PEAK, LEAST_SCALE, Rows, to_e4m3


def by_kernel(x: torch.Tensor) -> Rows:
    values, scale = e4m3_rows(x, E4M3_PEAK, LEAST_SCALE)
    assert values.dtype == E4M3
    return Rows(values.view(torch.uint8), scale)  # e4m3 cannot be pickled


def assert_same_bits(found: Rows, wanted: Rows) -> None:
    assert torch.equal(found.values, wanted.values.view(torch.uint8))
    assert torch.equal(found.scale, wanted.scale)


@given(
    shape=st.lists(st.integers(1, 3), min_size=0, max_size=2),
    width=st.integers(1, 70),
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_bits(
    interpreted: Interpreter,
    shape: list[int],
    width: int,
    *,
    exponent: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(*shape, width, generator=generator) * 2.0**exponent).to(dtype)
    assert_same_bits(interpreted.call(by_kernel, x), to_e4m3(x))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 5),
        torch.tensor([[1e-38, -1e-38, 0.0]]),
        torch.tensor([[3e38, 1.0, -3e38]]),
        torch.tensor([[1.0] * 7 + [1e4]]),
        torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).T,
        torch.zeros(0, 4),
    ],
    ids=["zeros", "tiny", "huge", "an outlier", "transposed", "no rows"],
)
def test_odd_rows(interpreted: Interpreter, x: torch.Tensor) -> None:
    assert_same_bits(interpreted.call(by_kernel, x), to_e4m3(x))


def test_cpus_and_gradients_take_plain_pytorch() -> None:
    assert not quantises(torch.ones(2))
