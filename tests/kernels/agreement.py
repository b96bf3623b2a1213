"""How near a kernel must come to its oracle: one rounding of the dtype, and that seldom."""

from __future__ import annotations

import torch

from tests.kernels.cases import Outputs

FLOAT32_BOUND = 2e-6  # of the largest value
BFLOAT16_STEP = 2.0**-7  # of the largest value: one step there, two or more for smaller values
BFLOAT16_SHARE = 0.01  # of the values may be rounded the other way


def assert_agree(kernels: Outputs, oracle: Outputs) -> None:
    """Equal names, shapes and dtypes, and values that differ by the order of sums only."""
    assert kernels.keys() == oracle.keys()
    for name, wanted in oracle.items():
        got = kernels[name]
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), name
        assert bool(torch.isfinite(got).all()), name
        largest = float(wanted.float().abs().max())
        distance = (got.float() - wanted.float()).abs()
        if wanted.dtype == torch.float32:
            assert float(distance.max()) <= FLOAT32_BOUND * max(largest, 1.0), name
        else:
            assert float(distance.max()) <= BFLOAT16_STEP * largest, name
            other = int((distance > 0).sum())
            assert other <= max(2, BFLOAT16_SHARE * distance.numel()), f"{name}: {other} differ"
