"""What a world computes with: `BlockMath` in plain PyTorch or Triton, and which attention.

Kernels `auto` are Triton on a CUDA device that has it. Exact mode stays with plain PyTorch, because
the kernels add up in another order, and with the attention that `runtime.device` allows. Nothing
here imports Triton, or what measures attention, unless it is used.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from worldline.core.errors import ConfigError
from worldline.ops.block_math import BlockMath, PlainMath

if TYPE_CHECKING:
    from worldline.kernels.attention import AttentionChooser

KINDS = ("auto", "torch", "triton")
CAPABILITY = (8, 0)  # bfloat16 in hardware


def choose_math(kind: str, *, mode: str, device: torch.device, joins: bool = True) -> BlockMath:
    """The arithmetic of kernel choice `kind` (one of `KINDS`) in `mode` on `device`.

    `joins` allows one product for queries, keys and values. Raises: ConfigError for an unknown
    kind, or `triton` where it cannot run.
    """
    if kind not in KINDS:
        raise ConfigError("unknown kernels", expected=" or ".join(KINDS), got=kind)
    if kind == "torch" or (kind == "auto" and mode == "exact"):
        return PlainMath(joins=joins)
    obstacle = triton_obstacle(device)
    if obstacle is None:
        from worldline.kernels.block_math import TritonMath

        return TritonMath(joins=joins)
    if kind == "auto":
        return PlainMath(joins=joins)
    raise ConfigError("Triton's kernels cannot run here", expected=obstacle, got=str(device))


def attention_chooser(*, mode: str, device: torch.device) -> AttentionChooser | None:
    """What finds the attention of each session's shape; None where torch's own is kept."""
    if mode == "exact" or device.type != "cuda":
        return None
    from worldline.kernels.attention import AttentionChooser

    return AttentionChooser(device)


def triton_obstacle(device: torch.device) -> str | None:
    """What the kernels lack on `device`; None where they run."""
    if find_spec("triton") is None:
        return "the package triton, which CUDA builds of torch bring along on Linux"
    if device.type == "cuda":
        wide_enough = torch.cuda.get_device_capability(device) >= CAPABILITY
        return None if wide_enough else f"a GPU of compute capability {CAPABILITY[0]}.0 or more"
    # Triton's own switch: kernels are interpreted, which is for tests and far too slow otherwise.
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return None if interpreted else "a CUDA device"
