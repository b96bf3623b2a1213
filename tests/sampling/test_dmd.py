"""The arithmetic between two forwards."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from worldline.sampling.dmd import euler_step, renoise, to_x0


def drawn(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.001])
def test_the_true_flow_leads_back_to_the_clean_latent(sigma: float) -> None:
    x0, eps = drawn(0), drawn(1)
    x_t = renoise(x0, eps, sigma)
    torch.testing.assert_close(to_x0(x_t, eps - x0, sigma), x0, atol=1e-6, rtol=0)


def test_noise_of_level_0_and_1() -> None:
    x0, eps = drawn(0), drawn(1)
    assert torch.equal(renoise(x0, eps, 0.0), x0)
    assert torch.equal(renoise(x0, eps, 1.0), eps)


def test_x0_is_computed_in_float64() -> None:
    x_t, flow, sigma = drawn(0) * 1e4, drawn(1) * 1e4, 0.99990
    want = (x_t.double() - sigma * flow.double()).float()
    assert torch.equal(to_x0(x_t, flow, sigma), want)


def test_euler_steps_follow_the_flow_to_the_clean_latent() -> None:
    x0, eps = drawn(0), drawn(1)
    x, sigmas = eps, (1.0, 0.7, 0.2, 0.0)
    for sigma, after in pairwise(sigmas):
        x = euler_step(x, eps - x0, sigma, after)
        torch.testing.assert_close(x, renoise(x0, eps, after), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_type_of_the_latent_and_are_rounded_once(dtype: torch.dtype) -> None:
    x, other = drawn(0).to(dtype), drawn(1).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want = ((1 - 0.3) * x.to(wide) + 0.3 * other.to(wide)).to(dtype)
    assert torch.equal(renoise(x, other, 0.3), want)
    assert to_x0(x, other, 0.3).dtype == dtype
    assert euler_step(x, other, 0.3, 0.1).dtype == dtype
