"""Operations that do in one call what their definitions need several for: the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.ops.block_math import PLAIN
from worldline.ops.modulation import modulate
from worldline.ops.norm import RMSNorm, plain_layer_norm
from worldline.ops.rope import apply_rope, rope_table

TYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_complex_product_turns_as_cosine_and_sine_do(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    table = rope_table([3, 700_000], 2, 3, head_dim=16)
    whole = torch.randn(1, 12, 3 * 32).to(dtype)
    x = whole[..., 32:64].unflatten(-1, (2, 16))  # part of a larger product, as joined layers give
    ours, theirs = apply_rope(x, table), apply_rope(x, table._replace(turn=None))
    assert ours.dtype == dtype and ours.shape == x.shape
    torch.testing.assert_close(
        ours, theirs, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-6
    )
    assert torch.allclose(ours.float().norm(), x.float().norm(), rtol=1e-2)


def test_turned_pairs_have_gradients() -> None:
    table = rope_table([5], 1, 2, head_dim=8)
    grads: list[Tensor] = []
    for one in (table, table._replace(turn=None)):
        x = torch.arange(32.0).view(1, 2, 2, 8).requires_grad_()
        (apply_rope(x, one) ** 3).sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 5])
def test_norm_and_modulation_in_one_call(dtype: torch.dtype, rows: int) -> None:
    """One modulation for all tokens, or one for each."""
    torch.manual_seed(0)
    x = torch.randn(1, 5, 24) * 3
    shift, scale = torch.randn(2, 1, rows, 24)
    ours = PLAIN.norm_modulate(x, shift=shift, scale=scale, eps=1e-6, dtype=dtype)
    theirs = modulate(plain_layer_norm(x, 1e-6), shift, scale).to(dtype)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_gain_of_a_norm(dtype: torch.dtype) -> None:
    """In half precision the norm is rounded before the gain, as in the official code."""
    torch.manual_seed(0)
    norm, x = RMSNorm(24, 1e-6).to(dtype), torch.randn(3, 24).to(dtype)
    nn.init.normal_(norm.weight)
    theirs = F.rms_norm(x.float(), (24,), eps=1e-6).to(dtype) * norm.weight
    torch.testing.assert_close(norm(x), theirs, rtol=1e-6, atol=1e-6)


def test_patches_by_product_are_patches_by_convolution() -> None:
    torch.manual_seed(0)
    dit = LingBotDiT(
        DiTParams(
            dim=24,
            ffn_dim=24,
            num_heads=2,
            num_layers=1,
            in_dim=36,
            out_dim=16,
            freq_dim=8,
            text_dim=8,
            text_len=4,
            eps=1e-6,
            control_dim=6,
        )
    )
    x = torch.randn(2, 36, 3, 4, 6)
    theirs = dit.patch_embedding(x).flatten(2).transpose(1, 2)  # B L C
    ours = dit.patchify(x)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
