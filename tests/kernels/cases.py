"""What is computed by kernels and by their oracle alike, from nothing but a shape and a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.ops.block_math import (
    PLAIN,
    BlockMath,
    EqualKeys,
    HeadNorms,
    KeyValue,
    Projected,
    split_heads,
)
from worldline.ops.norm import AffineLayerNorm, RMSNorm
from worldline.ops.rope import rope_table
from worldline.runtime.kv_cache import KVRing, RingParams

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one case; `table` is how many rows of modulation there are, a divisor of the tokens.

    `loose` makes the inputs slices and transposes of wider tensors, as a fused projection does.
    """

    batch: int = 1
    frames: int = 2
    rows: int = 2
    columns: int = 3
    heads: int = 2
    dim: int = 24
    table: int = 1
    dtype: torch.dtype = torch.float32
    loose: bool = False
    device: str = "cpu"
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the chunk."""
        return self.frames * self.rows * self.columns

    @property
    def width(self) -> int:
        """Width of the stream."""
        return self.heads * self.dim


class Inputs(NamedTuple):
    """Random values of a shape: the stream, and what meets it."""

    x: Tensor  # B L C, float32
    y: Tensor  # B L C
    table: Tensor  # B M 6 C, float32
    camera: tuple[Tensor, Tensor]  # B L C each
    qkv: Projected
    affine: AffineLayerNorm
    norms: HeadNorms


def inputs(shape: Shape) -> Inputs:
    """The same values in every process and on every device."""
    generator = torch.Generator().manual_seed(shape.seed)

    def draw(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(sizes, generator=generator).to(dtype).to(shape.device)

    b, n, c, dtype = shape.batch, shape.tokens, shape.width, shape.dtype
    affine = AffineLayerNorm(c, EPS)
    norms = HeadNorms(RMSNorm(c, EPS), RMSNorm(c, EPS), shape.heads)
    for parameter in (affine.weight, affine.bias, norms.q.weight, norms.k.weight):
        parameter.requires_grad_(False)
        parameter.data = draw(c, dtype=dtype)
    wide = draw(b, n, 3 * c, dtype=dtype).split(c, dim=-1)
    x = draw(b, c, n).transpose(1, 2) + 3  # a mean that the norm must take away
    return Inputs(
        x=x if shape.loose else x.contiguous(),
        y=draw(b, n, c, dtype=dtype),
        table=draw(b, shape.table, 6, c) * 0.5,
        camera=(draw(b, n, c, dtype=dtype), draw(b, n, c, dtype=dtype)),
        qkv=Projected(*(wide if shape.loose else [part.contiguous() for part in wide])),
        affine=affine,
        norms=norms,
    )


Outputs = dict[str, Tensor]
Case = Callable[[BlockMath, Shape], Outputs]


def for_all_tokens(math: BlockMath, shape: Shape, part: Tensor) -> Tensor:
    """Plain PyTorch broadcasts one row or a row per token; kernels take a row per frame too."""
    if math is PLAIN and part.shape[1] not in (1, shape.tokens):
        return part.repeat_interleave(shape.tokens // part.shape[1], dim=1)
    return part


def norms_and_gates(math: BlockMath, shape: Shape) -> Outputs:
    """Everything on the residual stream, each from the same inputs."""
    given = inputs(shape)
    table = [for_all_tokens(math, shape, part) for part in given.table.unbind(2)]
    shift, scale, gate = table[:3]
    before = given.x.clone()
    still = math.after_attention(given.x, given.y, gate=gate, camera=None, norm=given.affine)
    moved = math.after_attention(
        given.x, given.y, gate=gate, camera=given.camera, norm=given.affine
    )
    text = math.after_text(given.x, given.y, shift=shift, scale=scale, eps=EPS, dtype=shape.dtype)
    found = {
        "normed": math.norm_modulate(given.x, shift=shift, scale=scale, eps=EPS, dtype=shape.dtype),
        "still": still.x,
        "still_normed": still.normed,
        "moved": moved.x,
        "moved_normed": moved.normed,
        "text": text.x,
        "text_normed": text.normed,
        "gated": math.add_gated(given.x, given.y, gate=gate),
    }
    assert torch.equal(given.x, before), "inputs are not written to"
    return found


class Recorder:
    """An attention without slots: keeps what it is given."""

    def __init__(self) -> None:
        self.seen: Outputs = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.seen |= {f"q{layer}": q, f"k{layer}": k, f"v{layer}": v}
        return q + 1

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.seen |= {f"stored_k{layer}": k, f"stored_v{layer}": v}


def heads(math: BlockMath, shape: Shape) -> Outputs:
    """Queries, keys and values on their way to an attention without slots."""
    given, recorder = inputs(shape), Recorder()
    rope = rope_table(
        range(shape.seed, shape.seed + shape.frames),
        shape.rows,
        shape.columns,
        head_dim=shape.dim,
        device=shape.device,
    )
    out = math.self_attend(given.qkv, norms=given.norms, rope=rope, attend=recorder, layer=3)
    kv = KeyValue(given.qkv.k, given.qkv.v)
    math.store(kv, norms=given.norms, rope=rope, writer=recorder, layer=4)
    query = math.query(given.qkv.q, norms=given.norms)
    return recorder.seen | {"attended": out, "query": query}


def one_more_key(math: BlockMath, shape: Shape) -> Outputs:
    """Attention to a few rows of text, and to one more that stands for many."""
    given = inputs(shape)
    q, k, v = (split_heads(part, shape.heads).transpose(1, 2) for part in given.qkv)
    scores = q.float() @ k.float().transpose(2, 3) * shape.dim**-0.5
    out = (scores.softmax(-1) @ v.float()).transpose(1, 2).contiguous().transpose(1, 2)
    found: Outputs = {}
    for times in (1, 7, 480):
        key = EqualKeys(k[:, :, -1:] * 0.5, v[:, :, -1:] * 2, times)
        mixed = math.mix_key(out.to(shape.dtype), scores.logsumexp(-1), q=q, key=key)
        found[f"mixed{times}"] = mixed
    return found


def ring(math: BlockMath, shape: Shape) -> Outputs:
    """Chunks of a ring of three chunks' length: written straight into its slots, past its end."""
    given, frames = inputs(shape), shape.frames
    params = RingParams(
        layers=2,
        heads=shape.heads,
        head_dim=shape.dim,
        tokens_per_frame=shape.rows * shape.columns,
        window=3 * frames,
        sink=1,
    )
    kv = KVRing(params, dtype=shape.dtype, device=shape.device)
    for buffer in (*kv.keys, *kv.values):
        buffer.zero_()
    found: Outputs = {}
    for start in range(0, 5 * frames, frames):
        kv.begin_chunk(start, frames)
        where = range(start, start + frames)
        rope = rope_table(where, shape.rows, shape.columns, head_dim=shape.dim, device=shape.device)
        qkv = Projected(*(part + start for part in given.qkv))
        found[f"attended{start}"] = math.self_attend(
            qkv, norms=given.norms, rope=rope, attend=kv, layer=0
        )
        math.store(KeyValue(qkv.k, qkv.v), norms=given.norms, rope=rope, writer=kv, layer=1)
    for layer in range(2):
        found |= {f"keys{layer}": kv.keys[layer], f"values{layer}": kv.values[layer]}
    return found


def by_kernels(case: Case, shape: Shape) -> Outputs:
    """`case` by Triton's kernels; call it where they run."""
    from worldline.kernels.block_math import TritonMath

    with torch.no_grad():
        return case(TritonMath(), shape)


def by_oracle(case: Case, shape: Shape) -> Outputs:
    """`case` in plain PyTorch."""
    with torch.no_grad():
        return case(PLAIN, shape)
