"""One transformer block: self-attention, camera modulation, text cross-attention, feed-forward.

Weights and mathematics only. Keys and values of earlier chunks are met through the `attend`
callable, never kept here. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.lingbot.params import DiTParams
from worldline.ops.attention import Attend, CacheWriter, attention
from worldline.ops.block_math import (
    PLAIN,
    BlockMath,
    HeadNorms,
    KeyValue,
    Projected,
    split_heads,
)
from worldline.ops.cast import cast
from worldline.ops.joined import JoinedLinear
from worldline.ops.norm import AffineLayerNorm, RMSNorm
from worldline.ops.packed import PackedLinear
from worldline.ops.rope import RopeTable
from worldline.quant.linear import Fp8Linear, shared_rows
from worldline.quant.rows import Rows

# The parts of a block that are used at different times: text once per prompt, camera once per
# chunk, body in every pass.
Part = Literal["text", "camera", "body"]


class CameraModulation(NamedTuple):
    """What the camera does to the residual stream of one block, both `[B, L, C]`."""

    scale: Tensor
    shift: Tensor


class TextKV(NamedTuple):
    """Projected text of one block, both `[B, S, N, D]`."""

    k: Tensor
    v: Tensor

    def attend(self, query: Tensor) -> Tensor:
        """Cross-attention of `query` `[B, L, N, D]`, the only thing a block asks of its text."""
        return attention(query, self.k, self.v)


class TextAttend(Protocol):
    """What a block needs of its text: `TextKV`, or another form with the same result."""

    def attend(self, query: Tensor) -> Tensor:
        """Cross-attention of `query` `[B, L, N, D]`."""
        ...


def cast_linear(layer: nn.Linear | Fp8Linear, x: Tensor | Rows) -> Tensor:
    """Apply `layer` in the dtype of its weights; the stream is float32, they may not be.

    Rows in eight bits, made once for several layers, are for eight-bit layers only.
    """
    if isinstance(layer, Fp8Linear):
        return layer(x)
    assert isinstance(x, Tensor), "a full layer takes full numbers"
    return layer(x) if isinstance(layer, PackedLinear) else layer(x.to(layer.weight.dtype))


class Attention(nn.Module):
    """Projections of one attention; q and k are RMS-normalised over the whole width."""

    _joined: JoinedLinear | None = None

    def __init__(self, params: DiTParams) -> None:
        super().__init__()
        self.num_heads = params.num_heads
        self.q = nn.Linear(params.dim, params.dim)
        self.k = nn.Linear(params.dim, params.dim)
        self.v = nn.Linear(params.dim, params.dim)
        self.o = nn.Linear(params.dim, params.dim)
        self.norm_q = RMSNorm(params.dim, params.eps)
        self.norm_k = RMSNorm(params.dim, params.eps)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of queries and keys, and of what the projections take."""
        return self.norm_q.weight.dtype

    @property
    def norms(self) -> HeadNorms:
        """Norms and head count as `BlockMath` takes them."""
        return HeadNorms(self.norm_q, self.norm_k, self.num_heads)

    def join(self) -> None:
        """Make queries, keys and values one product, unless they are in eight bits or nowhere."""
        layers = self.q, self.k, self.v
        if any(type(layer) not in (nn.Linear, PackedLinear) for layer in layers):
            return
        if self.q.weight.is_meta or (self._joined is not None and self._joined.holds(layers)):
            return
        self._joined = JoinedLinear(layers)
        if isinstance(self.q, PackedLinear):
            self._joined.pack()

    def follow(self) -> None:
        """The projections were written to in place: the one product of all three follows."""
        if self._joined is not None:
            self._joined.follow((self.q, self.k, self.v))

    def project(self, x: Tensor, *, joined: bool = True) -> Projected:
        """Queries, keys and values of `x [B, L, C]`, neither normalised nor split.

        `joined` allows one product for all three, for which `join` prepares.
        """
        whole = self._joined if joined and not torch.is_grad_enabled() else None
        if whole is not None and whole.holds((self.q, self.k, self.v)):
            return Projected(*whole(cast(x, self.q.weight.dtype)))
        rows = shared_rows(self.q, x)
        return Projected(cast_linear(self.q, rows), *self.project_kv(rows))

    def project_kv(self, x: Tensor | Rows) -> KeyValue:
        """Keys and values of `x [B, L, C]`, neither normalised nor split."""
        rows = shared_rows(self.k, x)
        return KeyValue(cast_linear(self.k, rows), cast_linear(self.v, rows))

    def merge(self, heads: Tensor) -> Tensor:
        """Output projection of `[B, L, N, D]` -> `[B, L, C]`."""
        return cast_linear(self.o, heads.flatten(-2))


class Block(nn.Module):
    """One of the `num_layers` blocks."""

    def __init__(self, params: DiTParams) -> None:
        super().__init__()
        self.eps = params.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, params.dim))
        nn.init.normal_(self.modulation, std=params.dim**-0.5)
        self.self_attn = Attention(params)
        self.norm3 = AffineLayerNorm(params.dim, params.eps)
        self.cross_attn = Attention(params)
        self.ffn = nn.Sequential(
            nn.Linear(params.dim, params.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(params.ffn_dim, params.dim),
        )
        self.cam_injector_layer1 = nn.Linear(params.dim, params.dim)
        self.cam_injector_layer2 = nn.Linear(params.dim, params.dim)
        self.cam_scale_layer = nn.Linear(params.dim, params.dim)
        self.cam_shift_layer = nn.Linear(params.dim, params.dim)

    @staticmethod
    def part_of(name: str) -> Part | None:
        """When the block's tensor `name` is used; None for the modulation, needed at any time."""
        if name == "modulation":
            return None
        if name.startswith("cam_"):
            return "camera"
        text = name.startswith(("cross_attn.k.", "cross_attn.v.", "cross_attn.norm_k."))
        return "text" if text else "body"

    def time_table(self, e0: Tensor) -> Tensor:
        """Shift, scale, gate of attention and feed-forward: `e0 [B, M, 6, C]` -> same, float32."""
        return self.modulation.float().unsqueeze(0) + e0

    def camera_modulation(self, camera: Tensor) -> CameraModulation:
        """Scale and shift from the camera embedding `[B, L, C]`, which all blocks share."""
        hidden = cast_linear(
            self.cam_injector_layer2, F.silu(cast_linear(self.cam_injector_layer1, camera))
        )
        mixed = camera + hidden
        return CameraModulation(
            cast_linear(self.cam_scale_layer, mixed), cast_linear(self.cam_shift_layer, mixed)
        )

    def text_kv(self, text: Tensor) -> TextKV:
        """Keys and values of the embedded text `[B, S, C]`; every row counts, padding included."""
        cross = self.cross_attn
        k, v = cross.project_kv(text)
        heads = cross.num_heads
        return TextKV(split_heads(cross.norm_k(k), heads), split_heads(v, heads))

    def write_cache(
        self,
        x: Tensor,
        *,
        table: Tensor,
        rope: RopeTable,
        writer: CacheWriter,
        layer: int,
        math: BlockMath = PLAIN,
    ) -> None:
        """Store this block's keys and values of `x [B, L, C]` and stop there."""
        own = self.self_attn
        shift, scale = table[:, :, 0], table[:, :, 1]  # B M C
        normed = math.norm_modulate(x, shift=shift, scale=scale, eps=self.eps, dtype=own.dtype)
        kv = own.project_kv(normed)
        math.store(kv, norms=own.norms, rope=rope, writer=writer, layer=layer)

    def forward(
        self,
        x: Tensor,
        *,
        table: Tensor,
        rope: RopeTable,
        camera: CameraModulation | None,
        text: TextAttend,
        attend: Attend,
        layer: int,
        math: BlockMath = PLAIN,
    ) -> Tensor:
        """Advance the residual stream `x [B, L, C]`.

        `table [B, M, 6, C]` is shift, scale, gate for attention, then for the feed-forward, with
        `M` 1 or `L`. `math` computes what lies between the matmuls.
        """
        own, cross, eps, dtype = self.self_attn, self.cross_attn, self.eps, self.self_attn.dtype
        shift_sa, scale_sa, gate_sa, shift_ff, scale_ff, gate_ff = table.unbind(2)  # B M C
        normed = math.norm_modulate(x, shift=shift_sa, scale=scale_sa, eps=eps, dtype=dtype)
        qkv = own.project(normed, joined=math.joins)
        heads = math.self_attend(qkv, norms=own.norms, rope=rope, attend=attend, layer=layer)
        x, normed = math.after_attention(
            x, own.merge(heads), gate=gate_sa, camera=camera, norm=self.norm3
        )
        query = math.query(cast_linear(cross.q, normed), norms=cross.norms)
        y = cross.merge(text.attend(query))
        x, normed = math.after_text(x, y, shift=shift_ff, scale=scale_ff, eps=eps, dtype=dtype)
        inner = _gelu_of(_linear(self.ffn[0]), normed)
        return math.add_gated(x, cast_linear(_linear(self.ffn[2]), inner), gate=gate_ff)


def _gelu_of(layer: nn.Linear | Fp8Linear, x: Tensor) -> Tensor:
    """`layer` and the activation after it, in one call where the layer can."""
    if isinstance(layer, PackedLinear) and not torch.is_grad_enabled():
        return layer.gelu(x)
    return F.gelu(cast_linear(layer, x), approximate="tanh")


def _linear(module: nn.Module) -> nn.Linear | Fp8Linear:
    assert isinstance(module, nn.Linear | Fp8Linear), "ffn.0 and ffn.2 are linear layers"
    return module
