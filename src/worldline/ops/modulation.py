"""Shift, scale and gate: how time and camera enter a block."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return `x * (1 + scale) + shift`; both broadcast over the tokens of `x [B, L, C]`."""
    return torch.addcmul(shift, x, 1 + scale)


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first: `t [...]` -> float32 `[..., width]`.

    Angles are formed in float64 with frequencies `10000^(-j / (width/2))`.
    """
    half = width // 2
    ladder = torch.arange(half, dtype=torch.float64, device=t.device) * (-math.log(10000.0) / half)
    angles = t.to(torch.float64).unsqueeze(-1) * torch.exp(ladder)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()
