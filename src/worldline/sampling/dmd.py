"""The arithmetic between two forwards: flow to x0, noise on again, or one Euler step.

Flow is `noise - x0`, and `x_t = (1 - sigma) x0 + sigma noise`. All shapes pass through; results
have the type of the first argument.
"""

from __future__ import annotations

from torch import Tensor


def to_x0(x_t: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """Estimate of the clean latent, `x_t - sigma * flow`, computed in float64."""
    return (x_t.double() - sigma * flow.double()).to(x_t.dtype)


def renoise(x0: Tensor, eps: Tensor, sigma: float) -> Tensor:
    """Put fresh noise on a clean latent: `(1 - sigma) x0 + sigma eps`, at least in float32."""
    wide = x0 if x0.dtype.itemsize >= 4 else x0.float()
    return ((1 - sigma) * wide + sigma * eps.to(wide.dtype)).to(x0.dtype)


def euler_step(x: Tensor, flow: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Follow the flow from `sigma` to `sigma_next`, at least in float32."""
    wide = x if x.dtype.itemsize >= 4 else x.float()
    return (wide + (sigma_next - sigma) * flow.to(wide.dtype)).to(x.dtype)
