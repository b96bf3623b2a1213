"""Rows quantised to e4m3 by a Triton kernel, in one pass, bit for bit as `quant.rows` does it.

Divisions are the exact ones and rounding is to nearest even, so nothing depends on who computes.
Imports Triton inside the functions that run it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

NATIVE_CAPABILITY = (8, 9)  # Triton casts to e4m3 where the GPU itself can


def quantises(x: Tensor) -> bool:
    """Whether the kernel takes `x`: on a GPU that knows e4m3, with Triton, without gradients."""
    return x.is_cuda and not x.requires_grad and _can(x.device)


@cache
def _can(device: torch.device) -> bool:
    capable = torch.cuda.get_device_capability(device) >= NATIVE_CAPABILITY
    return capable and find_spec("triton") is not None


def e4m3_rows(x: Tensor, peak: float, least: float) -> tuple[Tensor, Tensor]:
    """Values `[..., C]` in e4m3 and scales `[..., 1]` in float32 of `x [..., C]`.

    The largest value of a row becomes `peak`; no scale is below `least`.
    """
    from worldline.kernels.quantise import launch

    rows = x.contiguous()
    values = torch.empty_like(rows, dtype=torch.float8_e4m3fn)
    scale = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    if rows.numel():
        launch(rows, values, scale, peak=peak, least=least)
    return values, scale
