"""One transformer block: self-attention, camera modulation, text cross-attention, feed-forward.

Weights and mathematics only. Keys and values of earlier chunks are met through the `attend`
callable, never kept here. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.lingbot.params import DiTParams
from worldline.ops.attention import Attend, CacheWriter, attention
from worldline.ops.modulation import modulate
from worldline.ops.norm import AffineLayerNorm, RMSNorm, plain_layer_norm
from worldline.ops.rope import RopeTable, apply_rope


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


def cast_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply `layer` in the dtype of its weights; the stream is float32, they may not be."""
    return layer(x.to(layer.weight.dtype))


class Attention(nn.Module):
    """Projections of one attention; q and k are RMS-normalised over the whole width."""

    def __init__(self, params: DiTParams) -> None:
        super().__init__()
        self.num_heads = params.num_heads
        self.q = nn.Linear(params.dim, params.dim)
        self.k = nn.Linear(params.dim, params.dim)
        self.v = nn.Linear(params.dim, params.dim)
        self.o = nn.Linear(params.dim, params.dim)
        self.norm_q = RMSNorm(params.dim, params.eps)
        self.norm_k = RMSNorm(params.dim, params.eps)

    def split(self, x: Tensor) -> Tensor:
        """`[B, L, C]` -> `[B, L, N, D]`."""
        return x.unflatten(-1, (self.num_heads, -1))

    def query(self, x: Tensor) -> Tensor:
        """Normalised queries `[B, L, N, D]` of `x [B, L, C]`."""
        return self.split(self.norm_q(cast_linear(self.q, x)))

    def key(self, x: Tensor) -> Tensor:
        """Normalised keys `[B, L, N, D]`."""
        return self.split(self.norm_k(cast_linear(self.k, x)))

    def value(self, x: Tensor) -> Tensor:
        """Values `[B, L, N, D]`."""
        return self.split(cast_linear(self.v, x))

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
        return TextKV(self.cross_attn.key(text), self.cross_attn.value(text))

    def write_cache(
        self, x: Tensor, *, table: Tensor, rope: RopeTable, writer: CacheWriter, layer: int
    ) -> None:
        """Store this block's keys and values of `x [B, L, C]` and stop there."""
        normed = modulate(plain_layer_norm(x, self.eps), table[:, :, 0], table[:, :, 1])
        key = apply_rope(self.self_attn.key(normed), rope)
        writer.write(layer, key, self.self_attn.value(normed))

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
    ) -> Tensor:
        """Advance the residual stream `x [B, L, C]`.

        `table [B, M, 6, C]` is shift, scale, gate for attention, then for the feed-forward, with
        `M` 1 or `L`.
        """
        shift_sa, scale_sa, gate_sa, shift_ff, scale_ff, gate_ff = table.unbind(2)  # B M C
        normed = modulate(plain_layer_norm(x, self.eps), shift_sa, scale_sa)
        q = apply_rope(self.self_attn.query(normed), rope)
        k = apply_rope(self.self_attn.key(normed), rope)
        heads = attend(layer, q, k, self.self_attn.value(normed))
        x = torch.addcmul(x, self.self_attn.merge(heads).to(gate_sa.dtype), gate_sa)
        if camera is not None:
            x = (1 + camera.scale) * x + camera.shift
        query = self.cross_attn.query(self.norm3(x))
        x = x + self.cross_attn.merge(text.attend(query))
        normed = modulate(plain_layer_norm(x, self.eps), shift_ff, scale_ff)
        inner = F.gelu(cast_linear(_linear(self.ffn[0]), normed), approximate="tanh")
        return torch.addcmul(x, cast_linear(_linear(self.ffn[2]), inner).to(gate_ff.dtype), gate_ff)


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear), "ffn.0 and ffn.2 are linear layers"
    return module
