"""Triton kernels on the residual stream: gate and residual, camera, layer norm, modulation.

One program handles one token; its row is read once, and once only written per result. Arithmetic is
float32; where `ops.block_math.PlainMath` rounds to the dtype of its inputs, so do these, so that
results differ from it by the order of the sums only. Imports Triton: import this lazily.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normalised(x, mask, eps, WIDTH: tl.constexpr):
    mean = tl.sum(x, 0) / WIDTH
    centred = tl.where(mask, x - mean, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + eps)


@triton.jit
def _modulated(x, shift, scale, mask, eps, WIDTH: tl.constexpr):
    column = tl.arange(0, x.shape[0])
    factor = 1.0 + tl.load(scale + column, mask, 0.0)
    return _normalised(x, mask, eps, WIDTH) * factor + tl.load(shift + column, mask, 0.0)


@triton.jit
def norm_modulate_kernel(
    x, shift, scale, out, group, stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """`out = layer_norm(x) * (1 + scale) + shift`; `group` rows share a row of the table."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    stream = tl.load(x + row * WIDTH + column, mask, 0.0)
    table = row // group * stride
    normed = _modulated(stream, shift + table, scale + table, mask, eps, WIDTH)
    tl.store(out + row * WIDTH + column, normed.to(out.dtype.element_ty), mask)


@triton.jit
def after_text_kernel(
    x, y, shift, scale, out, normed, group, stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """`out = x + y`, and `normed` is its modulated layer norm."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    at = row * WIDTH + column
    stream = tl.load(x + at, mask, 0.0) + tl.load(y + at, mask, 0.0).to(tl.float32)
    tl.store(out + at, stream, mask)
    table = row // group * stride
    result = _modulated(stream, shift + table, scale + table, mask, eps, WIDTH)
    tl.store(normed + at, result.to(normed.dtype.element_ty), mask)


@triton.jit
def add_gated_kernel(x, y, gate, out, group, stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`out = x + gate * y`."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    at = row * WIDTH + column
    factor = tl.load(gate + row // group * stride + column, mask, 0.0)
    added = tl.load(y + at, mask, 0.0).to(tl.float32) * factor
    tl.store(out + at, tl.load(x + at, mask, 0.0) + added, mask)


@triton.jit
def after_attention_kernel(
    x, y, gate, camera_scale, camera_shift, weight, bias, out, normed,
    group, stride, eps, CAMERA: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`out = (x + gate * y) * (1 + camera_scale) + camera_shift`, and `normed` its affine norm."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    at = row * WIDTH + column
    factor = tl.load(gate + row // group * stride + column, mask, 0.0)
    stream = tl.load(x + at, mask, 0.0) + tl.load(y + at, mask, 0.0).to(tl.float32) * factor
    if CAMERA:
        one_more = 1.0 + tl.load(camera_scale + at, mask, 0.0).to(tl.float32)
        one_more = one_more.to(camera_scale.dtype.element_ty).to(tl.float32)
        stream = one_more * stream + tl.load(camera_shift + at, mask, 0.0).to(tl.float32)
    tl.store(out + at, stream, mask)
    gain = tl.load(weight + column, mask, 0.0).to(tl.float32)
    offset = tl.load(bias + column, mask, 0.0).to(tl.float32)
    result = _normalised(stream, mask, eps, WIDTH) * gain + offset
    tl.store(normed + at, result.to(normed.dtype.element_ty), mask)
