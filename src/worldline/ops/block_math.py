"""What a block computes between its matmuls: norms, modulation, gates, RoPE and the cache write.

`BlockMath` is the seam where kernels come in. `PlainMath` is the reference in plain PyTorch: any
device, any dtype, differentiable; what a kernel computes is measured against it. The stream
`x [B, L, C]` stays float32 whatever the weights' dtype; what goes into a matmul is cast once.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.ops.attention import Attend, CacheWriter
from worldline.ops.cast import cast
from worldline.ops.modulation import modulate
from worldline.ops.norm import AffineLayerNorm, RMSNorm, plain_layer_norm
from worldline.ops.rope import RopeTable, apply_rope


class KeyValue(NamedTuple):
    """Projected keys and values, both `[B, L, C]`."""

    k: Tensor
    v: Tensor


class Projected(NamedTuple):
    """Projected queries, keys and values of a self-attention, all `[B, L, C]`."""

    q: Tensor
    k: Tensor
    v: Tensor


class HeadNorms(NamedTuple):
    """Norms of queries and keys, and the number of heads the width is split into."""

    q: RMSNorm
    k: RMSNorm
    heads: int


class EqualKeys(NamedTuple):
    """A key and its value `[B, N, 1, D]` that stand for `times` equal ones."""

    k: Tensor
    v: Tensor
    times: int


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, L, C]` -> `[B, L, N, D]`."""
    return x.unflatten(-1, (heads, -1))


class Advanced(NamedTuple):
    """The stream `x [B, L, C]`, and its norm as the next matmul takes it."""

    x: Tensor
    normed: Tensor


class BlockMath(Protocol):
    """Everything of a block that is neither matmul nor attention.

    `name` is for reports; `joins` allows one product for queries, keys and values (see
    `models.lingbot.blocks`). `shift`, `scale` and `gate` are float32 `[B, M, C]` with `M` 1 or `L`;
    `camera` is scale and shift `[B, L, C]`; `dtype` is what the next matmul takes.
    """

    name: str
    joins: bool

    def norm_modulate(
        self, x: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """`layer_norm(x) * (1 + scale) + shift`."""
        ...

    def self_attend(
        self, qkv: Projected, *, norms: HeadNorms, rope: RopeTable, attend: Attend, layer: int
    ) -> Tensor:
        """Normalise and turn queries and keys, then attend: `[B, L, N, D]`."""
        ...

    def store(
        self, kv: KeyValue, *, norms: HeadNorms, rope: RopeTable, writer: CacheWriter, layer: int
    ) -> None:
        """Normalise and turn the keys and store them with the values."""
        ...

    def after_attention(
        self,
        x: Tensor,
        y: Tensor,
        *,
        gate: Tensor,
        camera: tuple[Tensor, Tensor] | None,
        norm: AffineLayerNorm,
    ) -> Advanced:
        """`x + gate * y`, camera modulation, then `norm` in the dtype of its weights."""
        ...

    def query(self, q: Tensor, *, norms: HeadNorms) -> Tensor:
        """Normalise projected queries `[B, L, C]` that are not turned: `[B, L, N, D]`."""
        ...

    def mix_key(self, out: Tensor, log_sum: Tensor, *, q: Tensor, key: EqualKeys) -> Tensor:
        """Attention `out [B, N, L, D]` of `q` with one more key.

        `log_sum [B, N, L]` is the logarithm of the sum of exponentials behind `out`, float32.
        """
        ...

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
        """`x + y`, then `norm_modulate`."""
        ...

    def add_gated(self, x: Tensor, y: Tensor, *, gate: Tensor) -> Tensor:
        """`x + gate * y`."""
        ...


class PlainMath:
    """`BlockMath` in plain PyTorch: the reference."""

    name = "torch"

    def __init__(self, *, joins: bool = True) -> None:
        self.joins = joins

    def norm_modulate(
        self, x: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """See `BlockMath`."""
        if scale.numel() == scale.shape[-1]:  # one scale for all tokens is a layer norm's own gain
            gain, bias = (1 + scale).flatten(), shift.flatten()  # C
            return cast(torch.layer_norm(x, gain.shape, gain, bias, eps), dtype)
        return modulate(plain_layer_norm(x, eps), shift, scale).to(dtype)

    def self_attend(
        self, qkv: Projected, *, norms: HeadNorms, rope: RopeTable, attend: Attend, layer: int
    ) -> Tensor:
        """See `BlockMath`."""
        q, k = self._head(qkv.q, norms.q, norms, rope), self._head(qkv.k, norms.k, norms, rope)
        return attend(layer, q, k, split_heads(qkv.v, norms.heads))

    def store(
        self, kv: KeyValue, *, norms: HeadNorms, rope: RopeTable, writer: CacheWriter, layer: int
    ) -> None:
        """See `BlockMath`."""
        k = self._head(kv.k, norms.k, norms, rope)
        writer.write(layer, k, split_heads(kv.v, norms.heads))

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
        x = self.add_gated(x, y, gate=gate)
        if camera is not None:
            scale, shift = camera
            x = (1 + scale) * x + shift
        return Advanced(x, cast(norm(x), norm.weight.dtype))

    def query(self, q: Tensor, *, norms: HeadNorms) -> Tensor:
        """See `BlockMath`."""
        return split_heads(norms.q(q), norms.heads)

    def mix_key(self, out: Tensor, log_sum: Tensor, *, q: Tensor, key: EqualKeys) -> Tensor:
        """See `BlockMath`."""
        score = torch.einsum("bnld,bnsd->bnl", q.float(), key.k.float())
        score = score * q.shape[-1] ** -0.5 + math.log(key.times)
        share = torch.sigmoid(score - log_sum).unsqueeze(-1)
        return torch.lerp(out.float(), key.v.float(), share).to(q.dtype)

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
        x = x + y
        return Advanced(x, self.norm_modulate(x, shift=shift, scale=scale, eps=eps, dtype=dtype))

    def add_gated(self, x: Tensor, y: Tensor, *, gate: Tensor) -> Tensor:
        """See `BlockMath`."""
        return torch.addcmul(x, cast(y, gate.dtype), gate)

    def _head(self, x: Tensor, norm: RMSNorm, norms: HeadNorms, rope: RopeTable) -> Tensor:
        """Queries or keys as attention takes them: `[B, L, C]` -> `[B, L, N, D]`."""
        return apply_rope(split_heads(norm(x), norms.heads), rope)


PLAIN = PlainMath()
