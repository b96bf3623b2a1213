"""Triton kernel of `kernels.rows`: one program quantises one row. Imports Triton: import lazily."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from worldline.kernels.launch import device_of, padded, warps_for


@triton.jit
def e4m3_kernel(x, values, scale, peak, least, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`scale` = largest of the row by `peak`, `values` = row by `scale`, clamped to `peak`."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    wide = tl.load(x + row * WIDTH + column, mask, 0.0).to(tl.float32)
    step = tl.maximum(tl.div_rn(tl.max(tl.abs(wide), 0), peak), least)
    scaled = tl.minimum(tl.maximum(tl.div_rn(wide, step), -peak), peak)
    tl.store(values + row * WIDTH + column, scaled.to(values.dtype.element_ty), mask)
    tl.store(scale + row, step)


def launch(x: Tensor, values: Tensor, scale: Tensor, *, peak: float, least: float) -> None:
    """Quantise `x [..., C]` into `values [..., C]` and `scale [..., 1]`, none of them with gaps."""
    width = x.shape[-1]
    block = padded(width)
    kernel: Any = e4m3_kernel
    with device_of(x):
        kernel[(x.numel() // width,)](
            x, values, scale, peak, least, width, block, num_warps=warps_for(block)
        )
