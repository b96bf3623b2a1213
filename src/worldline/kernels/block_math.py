"""`ops.block_math.BlockMath` in Triton: five launches per block where plain PyTorch needs dozens.

For inference on CUDA devices; what the kernels cannot take (gradients, a stream that is not
float32) is our own mistake and asserted. Keys and values go straight into the slots of an attention
that has some (`ops.attention.SlotAttend`); any other gets tensors. Imports Triton: import lazily.
"""

from __future__ import annotations

from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldline.kernels.heads import KEY, QUERY, VALUE, heads_kernel, mix_key_kernel
from worldline.kernels.launch import device_of, padded, warps_for
from worldline.kernels.stream import (
    add_gated_kernel,
    after_attention_kernel,
    after_text_kernel,
    norm_modulate_kernel,
)
from worldline.ops.attention import Attend, CacheWriter, SlotAttend, Slots
from worldline.ops.block_math import (
    Advanced,
    EqualKeys,
    HeadNorms,
    KeyValue,
    Projected,
    split_heads,
)
from worldline.ops.norm import AffineLayerNorm
from worldline.ops.rope import RopeTable


class Rows(NamedTuple):
    """How the kernels walk a table `[B, M, C]`: `group` rows of the stream share one of its rows,
    which lie `stride` values apart.
    """

    group: int
    stride: int


class TritonMath:
    """`BlockMath` by kernels. `warps` per program is chosen by the width unless given."""

    name = "triton"

    def __init__(self, *, joins: bool = True, warps: int | None = None) -> None:
        self.joins = joins
        self._warps = warps

    def norm_modulate(
        self, x: Tensor, *, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """See `BlockMath`."""
        x = _stream(x)
        out = torch.empty_like(x, dtype=dtype)
        self._per_row(norm_modulate_kernel, x, shift, scale, out, *_rows(x, shift, scale), eps)
        return out

    def self_attend(
        self, qkv: Projected, *, norms: HeadNorms, rope: RopeTable, attend: Attend, layer: int
    ) -> Tensor:
        """See `BlockMath`."""
        if isinstance(attend, SlotAttend):
            q, _ = self._heads(qkv, norms, rope=rope, slots=attend.slots(layer))
            return attend.read(layer, q)
        q, k = self._heads(qkv, norms, rope=rope)
        return attend(layer, q, k, split_heads(qkv.v, norms.heads))

    def store(
        self, kv: KeyValue, *, norms: HeadNorms, rope: RopeTable, writer: CacheWriter, layer: int
    ) -> None:
        """See `BlockMath`."""
        parts = Projected(kv.k, kv.k, kv.v)
        if isinstance(writer, SlotAttend):
            self._heads(parts, norms, rope=rope, slots=writer.slots(layer), first=KEY)
            return
        _, k = self._heads(parts, norms, rope=rope, first=KEY)
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
        x, y = _stream(x), y.contiguous()
        out, normed = torch.empty_like(x), torch.empty_like(x, dtype=norm.weight.dtype)
        scale, shift = (x, x) if camera is None else (part.contiguous() for part in camera)
        tensors = (x, y, gate, scale, shift, norm.weight, norm.bias, out, normed)
        numbers = (*_rows(x, gate), norm.eps, camera is not None)
        self._per_row(after_attention_kernel, *tensors, *numbers)
        return Advanced(out, normed)

    def query(self, q: Tensor, *, norms: HeadNorms) -> Tensor:
        """See `BlockMath`."""
        return self._heads(Projected(q, q, q), norms, last=QUERY)[0]

    def mix_key(self, out: Tensor, log_sum: Tensor, *, q: Tensor, key: EqualKeys) -> Tensor:
        """See `BlockMath`."""
        out, q = (part.transpose(1, 2).contiguous() for part in (out, q))  # B L N D
        batch, tokens, heads, dim = q.shape
        assert log_sum.shape == (batch, heads, tokens), log_sum.shape
        k, v = (part.reshape(batch, heads, dim).contiguous() for part in (key.k, key.v))
        mixed = torch.empty_like(q)
        blocks = (padded(heads), padded(dim))
        numbers = (tokens, dim**-0.5, log(key.times), heads, dim, *blocks)
        kernel: Any = mix_key_kernel
        with device_of(q):
            kernel[(batch * tokens,)](
                *(out, log_sum.contiguous(), q, k, v, mixed, *numbers),
                num_warps=self._warps or warps_for(blocks[0] * blocks[1]),
            )
        return mixed.transpose(1, 2)

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
        x, y = _stream(x), y.contiguous()
        out, normed = torch.empty_like(x), torch.empty_like(x, dtype=dtype)
        rows = _rows(x, shift, scale)
        self._per_row(after_text_kernel, x, y, shift, scale, out, normed, *rows, eps)
        return Advanced(out, normed)

    def add_gated(self, x: Tensor, y: Tensor, *, gate: Tensor) -> Tensor:
        """See `BlockMath`."""
        x, y = _stream(x), y.contiguous()
        out = torch.empty_like(x)
        self._per_row(add_gated_kernel, x, y, gate, out, *_rows(x, gate))
        return out

    def _per_row(self, kernel: Any, x: Tensor, *arguments: object) -> None:
        """Launch a kernel of `kernels.stream`, one program per row of `x [B, L, C]`."""
        batch, tokens, width = x.shape
        block = padded(width)
        with device_of(x):
            kernel[(batch * tokens,)](
                x, *arguments, width, block, num_warps=self._warps or warps_for(block)
            )

    def _heads(
        self,
        qkv: Projected,
        norms: HeadNorms,
        *,
        rope: RopeTable | None = None,
        slots: Slots | None = None,
        first: int = QUERY,
        last: int = KEY,
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, normalised and turned, `[B, L, N, D]`.

        With `slots`, keys and values go there and the keys returned are the slots'.
        """
        batch, tokens, width = qkv.q.shape
        dim = width // norms.heads
        q_out = torch.empty_like(qkv.q, memory_format=torch.contiguous_format)
        k_out, v_out, index = slots or (torch.empty_like(q_out), q_out, q_out)
        assert slots is None or (batch == 1 and index.shape == (tokens,)), index.shape
        assert qkv.q.dtype == norms.q.weight.dtype == norms.k.weight.dtype, qkv.q.dtype
        weights = norms.q.weight, norms.k.weight
        angles = (q_out, q_out) if rope is None else (rope.cos, rope.sin)
        strides = (_row_stride(part) for part in qkv)
        kinds = (first, rope is not None, slots is not None)
        blocks = (padded(norms.heads), padded(dim))
        kernel: Any = heads_kernel
        with device_of(q_out):
            kernel[(batch * tokens, (VALUE if slots else last) - first + 1)](
                *(*qkv, *weights, *angles, index, q_out, k_out, v_out),
                *(tokens, *strides, norms.q.eps, *kinds, norms.heads, dim, *blocks),
                num_warps=self._warps or warps_for(blocks[0] * blocks[1]),
            )
        return split_heads(q_out, norms.heads), k_out if slots else split_heads(k_out, norms.heads)


def _stream(x: Tensor) -> Tensor:
    """The stream as the kernels take it: rows of float32 without gaps, no gradient."""
    assert x.dtype == torch.float32 and x.ndim == 3, f"{x.dtype} {list(x.shape)}"
    assert not (torch.is_grad_enabled() and x.requires_grad), "kernels have no backward"
    return x.contiguous()


def _rows(x: Tensor, *tables: Tensor) -> Rows:
    """How rows of `x [B, L, C]` find theirs in tables `[B, M, C]`, `M` a divisor of `L`."""
    table = tables[0]
    for other in tables:
        assert other.dtype == torch.float32 and other.stride() == table.stride(), "unlike tables"
    batch, frames, _ = table.shape
    assert batch == x.shape[0] and x.shape[1] % frames == 0, f"{table.shape} for {x.shape}"
    assert table.stride(2) == 1 and (batch == 1 or frames == 1 or _dense(table)), table.stride()
    stride = table.stride(0) if frames == 1 else table.stride(1)
    return Rows(x.shape[1] // frames, stride)


def _row_stride(part: Tensor) -> int:
    """Distance of the rows of `part [B, L, C]`, which may be a slice of a wider projection."""
    assert part.stride(2) == 1 and (part.shape[0] == 1 or _dense(part)), part.stride()
    return part.stride(1)


def _dense(x: Tensor) -> bool:
    """Whether the batches of `x [B, L, ...]` follow each other at the distance of its rows."""
    return x.stride(0) == x.shape[1] * x.stride(1)
