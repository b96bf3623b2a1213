"""What lies between a block's matmuls, compiled by torch: `--compile regional`.

Small functions without state, each compiled once for every shape it meets and shared by all blocks.
Matmuls and attention stay calls of their libraries, so nothing here is compiled per layer. Fused
operations round less often than `PlainMath`, so results agree to rounding, not bit for bit. Imports
torch's compiler: import lazily.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from worldline.kernels.choice_file import cache_folder
from worldline.ops.block_math import (
    Advanced,
    HeadNorms,
    PlainMath,
    split_heads,
)
from worldline.ops.modulation import modulate
from worldline.ops.norm import AffineLayerNorm, RMSNorm, plain_layer_norm
from worldline.ops.rope import RopeTable, apply_rope

P = ParamSpec("P")
R = TypeVar("R")


class CompiledMath(PlainMath):
    """`BlockMath` by torch's compiler."""

    name = "compiled"

    def __init__(self, *, joins: bool = True) -> None:
        super().__init__(joins=joins)
        keep_on_disk()
        self._norm_modulate = _compiled(_norm_modulate)
        self._turned = _compiled(_turned)
        self._normed = _compiled(_normed)
        self._after_attention = _compiled(_after_attention)
        self._after_text = _compiled(_after_text)

    def norm_modulate(
        self, x: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """See `BlockMath`."""
        return self._norm_modulate(x, shift=shift, scale=scale, eps=eps, dtype=dtype)

    def after_attention(
        self,
        x: Tensor,
        y: Tensor,
        *,
        gate: Tensor,
        camera: tuple[Tensor, Tensor] | None,
        norm: AffineLayerNorm,
    ) -> Advanced:
        """See `BlockMath`."""
        weight, bias, eps = norm.weight, norm.bias, norm.eps
        made = self._after_attention(
            x, y, gate=gate, camera=camera, weight=weight, bias=bias, eps=eps
        )
        return Advanced(*made)

    def query(self, q: Tensor, *, norms: HeadNorms) -> Tensor:
        """See `BlockMath`."""
        return self._normed(q, norms.q.weight, eps=norms.q.eps, heads=norms.heads)

    def after_text(
        self,
        x: Tensor,
        y: Tensor,
        *,
        shift: Tensor,
        scale: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> Advanced:
        """See `BlockMath`."""
        made = self._after_text(x, y, shift=shift, scale=scale, eps=eps, dtype=dtype)
        return Advanced(*made)

    def _head(self, x: Tensor, norm: RMSNorm, norms: HeadNorms, rope: RopeTable) -> Tensor:
        return self._turned(
            x, norm.weight, eps=norm.eps, heads=norms.heads, cos=rope.cos, sin=rope.sin
        )


def keep_on_disk(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep what is compiled with the user's caches: torch's default is gone after a reboot."""
    environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled for the shapes it meets: few, and each for ever."""
    return torch.compile(function, dynamic=False, fullgraph=True)


def _norm_modulate(
    x: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    return modulate(plain_layer_norm(x, eps), shift, scale).to(dtype)


def _normed(x: Tensor, weight: Tensor, *, eps: float, heads: int) -> Tensor:
    normed = F.rms_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype) * weight
    return split_heads(normed, heads)


def _turned(
    x: Tensor, weight: Tensor, *, eps: float, heads: int, cos: Tensor, sin: Tensor
) -> Tensor:
    return apply_rope(_normed(x, weight, eps=eps, heads=heads), RopeTable(cos, sin))


def _after_attention(
    x: Tensor,
    y: Tensor,
    *,
    gate: Tensor,
    camera: tuple[Tensor, Tensor] | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    x = torch.addcmul(x, y.to(gate.dtype), gate)
    if camera is not None:
        scale, shift = camera
        x = (1 + scale) * x + shift
    normed = F.layer_norm(x.float(), (x.shape[-1],), weight.float(), bias.float(), eps)
    return x, normed.to(weight.dtype)


def _after_text(
    x: Tensor, y: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    x = x + y
    return x, _norm_modulate(x, shift=shift, scale=scale, eps=eps, dtype=dtype)
