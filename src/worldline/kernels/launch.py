"""How programs are laid over rows: block sizes, warps, the device to start on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

COLUMNS_PER_WARP = 512  # 16 float32 per thread
MAX_WARPS = 16


def padded(size: int) -> int:
    """The next power of two, in which Triton's blocks come."""
    return 1 << (size - 1).bit_length()


def warps_for(block: int) -> int:
    """Warps of a program that holds a row of `block` values."""
    return min(MAX_WARPS, max(1, block // COLUMNS_PER_WARP))


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Kernels start on the current device, which need not be the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
