"""Normalisations of the Wan transformer, computed in float32 whatever the dtype of the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.ops.cast import cast


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width `C` (across heads) with a learned gain `[C]`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x [..., C]`; the result has the dtype of `x`."""
        if x.dtype == torch.float32:  # nothing is rounded between norm and gain: one call
            return torch.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class AffineLayerNorm(nn.Module):
    """Layer norm with gain and bias `[C]`, as used before the text cross-attention."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x [..., C]` in float32 and return float32."""
        return F.layer_norm(
            cast(x, torch.float32),
            (x.shape[-1],),
            cast(self.weight, torch.float32),
            cast(self.bias, torch.float32),
            self.eps,
        )


def plain_layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm of `x [..., C]` without gain and bias, in float32."""
    return F.layer_norm(x.float(), (x.shape[-1],), None, None, eps)
