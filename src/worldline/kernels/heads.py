"""Triton kernels on heads: RMS norm, RoPE and the write into the ring; one more key.

One program handles one row of one of queries, keys and values. Arithmetic is float32; where
`ops.block_math.PlainMath` rounds to the dtype of its inputs, so does this, so that results differ
from it by the order of one sum only. Imports Triton: import this lazily.
"""

from __future__ import annotations

import triton
import triton.language as tl

QUERY, KEY, VALUE = 0, 1, 2  # the parts, program axis 1 counted from FIRST


@triton.jit
def _turned(x, cos, sin, DIM: tl.constexpr):
    """Turn the interleaved pairs of `x [HEADS, DIM]` by the angles of one token."""
    pair = tl.arange(0, x.shape[1] // 2)
    mask = pair < DIM // 2
    c = tl.load(cos + pair, mask, 0.0)[None, :]
    s = tl.load(sin + pair, mask, 0.0)[None, :]
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    return tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), x.shape)


@triton.jit
def _normed_head(source, weight, cos, sin, target, at, mask, eps, ROPE: tl.constexpr,
                 WIDTH: tl.constexpr, DIM: tl.constexpr):  # fmt: skip
    x = tl.load(source + at, mask, 0.0)
    wide = x.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(tl.sum(wide * wide, 1), 0) / WIDTH + eps)
    gain = tl.load(weight + at, mask, 0.0).to(tl.float32)
    normed = ((wide * inverse).to(x.dtype).to(tl.float32) * gain).to(x.dtype)
    if ROPE:
        normed = _turned(normed.to(tl.float32), cos, sin, DIM).to(x.dtype)
    tl.store(target + at, normed.to(target.dtype.element_ty), mask)


@triton.jit
def heads_kernel(
    q, k, v, weight_q, weight_k, cos, sin, slots, q_out, k_out, v_out,
    tokens, q_stride, k_stride, v_stride, eps,
    FIRST: tl.constexpr, ROPE: tl.constexpr, SLOTS: tl.constexpr, HEADS: tl.constexpr,
    DIM: tl.constexpr, HEADS_BLOCK: tl.constexpr, DIM_BLOCK: tl.constexpr,
):  # fmt: skip
    """Row by row `q_out = turned(normed(q))`, `k_out` the same of `k`, `v_out = v`.

    Keys and values go to row `slots[row]` where SLOTS is set.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1) + FIRST
    head = tl.arange(0, HEADS_BLOCK)[:, None]
    dim = tl.arange(0, DIM_BLOCK)[None, :]
    at = head * DIM + dim  # HEADS_BLOCK DIM_BLOCK
    mask = (head < HEADS) & (dim < DIM)
    width: tl.constexpr = HEADS * DIM
    angle = row % tokens * (DIM // 2)
    slot = tl.load(slots + row) if SLOTS else row
    if part == 0:
        _normed_head(q + row * q_stride, weight_q, cos + angle, sin + angle, q_out + row * width,
                     at, mask, eps, ROPE, width, DIM)  # fmt: skip
    elif part == 1:
        _normed_head(k + row * k_stride, weight_k, cos + angle, sin + angle, k_out + slot * width,
                     at, mask, eps, ROPE, width, DIM)  # fmt: skip
    else:
        value = tl.load(v + row * v_stride + at, mask, 0.0)
        tl.store(v_out + slot * width + at, value.to(v_out.dtype.element_ty), mask)


@triton.jit
def mix_key_kernel(
    out, log_sum, q, k, v, mixed, tokens, scale, log_times, HEADS: tl.constexpr,
    DIM: tl.constexpr, HEADS_BLOCK: tl.constexpr, DIM_BLOCK: tl.constexpr,
):  # fmt: skip
    """`mixed` = `out` and `v`, by the share of `exp(q k scale + log_times)` beside `exp(log_sum)`.

    `out`, `q` and `mixed` are `[B, L, N, D]`, `k` and `v` `[B, N, D]`, `log_sum` `[B, N, L]`.
    """
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    heads = tl.arange(0, HEADS_BLOCK)
    dim = tl.arange(0, DIM_BLOCK)[None, :]
    at = heads[:, None] * DIM + dim  # HEADS_BLOCK DIM_BLOCK
    mask = (heads[:, None] < HEADS) & (dim < DIM)
    one = batch * HEADS * DIM + at
    own = row * HEADS * DIM + at
    query = tl.load(q + own, mask, 0.0).to(tl.float32)
    score = tl.sum(query * tl.load(k + one, mask, 0.0).to(tl.float32), 1) * scale + log_times
    sums = (batch * HEADS + heads) * tokens + row % tokens
    share = tl.sigmoid(score - tl.load(log_sum + sums, heads < HEADS, 0.0))[:, None]
    before = tl.load(out + own, mask, 0.0).to(tl.float32)
    value = tl.load(v + one, mask, 0.0).to(tl.float32)
    result = before + share * (value - before)
    tl.store(mixed + own, result.to(mixed.dtype.element_ty), mask)
