"""Classifier-free guidance: what the prompt adds to the flow, made stronger."""

from __future__ import annotations

from torch import Tensor


def guide(flow: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """`unconditional + scale * (flow - unconditional)`; scale 1 is the flow alone."""
    return unconditional + scale * (flow - unconditional)
