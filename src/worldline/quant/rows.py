"""Rows in eight bits: every row of the last axis keeps one float32 scale of its own.

Two kinds. `e4m3` (a float of 4 exponent and 3 mantissa bits) is what tensor cores multiply; `int8`
has evenly spaced steps and about a quarter of the error for rows without outliers, and is for
storing only. Rounding is to nearest even and equal on every device, so what the CPU shows of the
quality holds for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldline.kernels.rows import e4m3_rows, quantises

E4M3 = torch.float8_e4m3fn
E4M3_PEAK = 448.0  # largest finite value of e4m3
INT8_PEAK = 127.0  # symmetric: -128 is not used
# Smallest scale: a row of zeros must not divide by zero, and 1 / scale must be finite.
LEAST_SCALE = 1e-30


class Rows(NamedTuple):
    """`values [..., C]` in eight bits and `scale [..., 1]`, float32: value times scale."""

    values: Tensor
    scale: Tensor


def to_e4m3(x: Tensor) -> Rows:
    """Quantise each row of `x [..., C]` so that its largest value becomes 448."""
    if quantises(x):
        return Rows(*e4m3_rows(x, E4M3_PEAK, LEAST_SCALE))
    return plain_e4m3(x)


def plain_e4m3(x: Tensor) -> Rows:
    """`to_e4m3` in plain PyTorch: the oracle of its kernel."""
    scaled, scale = _scaled(x, E4M3_PEAK)
    # Clamped, because a cast turns what rounding pushed past the largest value into NaN.
    return Rows(scaled.clamp_(-E4M3_PEAK, E4M3_PEAK).to(E4M3), scale)


def to_int8(x: Tensor) -> Rows:
    """Quantise each row of `x [..., C]` so that its largest value becomes 127."""
    scaled, scale = _scaled(x, INT8_PEAK)
    return Rows(scaled.round_().clamp_(-INT8_PEAK, INT8_PEAK).to(torch.int8), scale)


def from_rows(rows: Rows, dtype: torch.dtype) -> Tensor:
    """The values `[..., C]` that `rows` stand for, formed in float32 and rounded to `dtype`."""
    return (rows.values.float() * rows.scale).to(dtype)


def _scaled(x: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    wide = x.float()  # ... C
    scale = (wide.abs().amax(-1, keepdim=True) / peak).clamp_min(LEAST_SCALE)  # ... 1
    return wide / scale, scale
