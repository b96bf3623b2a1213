"""The networks at full size, on the meta device, against the recorded names and shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worldline.models.registry import get_preset
from worldline.runtime.parts import build_networks

SHAPES = Path(__file__).resolve().parent / "state_dict_shapes.json"

CASES = [
    ("lingbot-world-base-cam", "transformer", "dit_14b_base_cam_each_expert"),
    ("lingbot-world-base-act", "transformer", "dit_14b_base_act_each_expert"),
    ("lingbot-world-fast", "transformer", "dit_14b_fast_or_v2_causal_fast"),
    ("lingbot-world-v2-14b", "transformer", "dit_14b_fast_or_v2_causal_fast"),
    ("lingbot-world-v2-1.3b", "transformer", "dit_1.3b_v2_causal_fast"),
    ("lingbot-world-fast", "autoencoder", "wan21_vae"),
    ("lingbot-world-fast", "text encoder", "umt5_xxl_encoder"),
]


def networks_of(preset: str, part: str) -> list[nn.Module]:
    """All networks of one kind; a base preset has two transformers."""
    networks = build_networks(get_preset(preset))
    if part == "transformer":
        return list(networks.dits)
    return [module for label, module in networks.labelled() if label == part]


def folded(module: nn.Module) -> dict[str, list[Any]]:
    """Shapes by name with the block index written `{i}`, and how many names share the pattern."""
    found: dict[str, list[Any]] = {}
    for name, tensor in module.state_dict().items():
        pattern = re.sub(r"^blocks\.\d+\.", "blocks.{i}.", name)
        entry = found.setdefault(pattern, [list(tensor.shape), 0])
        assert entry[0] == list(tensor.shape), f"{name} differs from its siblings"
        entry[1] += 1
    return found


@pytest.mark.parametrize(("preset", "part", "record"), CASES)
def test_names_and_shapes(preset: str, part: str, record: str) -> None:
    expected = json.loads(SHAPES.read_text())[record]
    modules = networks_of(preset, part)
    assert len(modules) == (2 if "expert" in record else 1)
    for module in modules:
        state = module.state_dict()
        assert all(tensor.is_meta for tensor in state.values())
        assert len(state) == expected["keys"]
        assert sum(tensor.numel() for tensor in state.values()) == expected["params"]
        assert folded(module) == expected["patterns"]


def test_blocks_are_numbered_without_gaps() -> None:
    (dit,) = build_networks(get_preset("lingbot-world-fast")).dits
    numbers = {int(n.split(".")[1]) for n in dit.state_dict() if n.startswith("blocks.")}
    assert numbers == set(range(40))


def test_half_precision_keeps_time_and_head_in_float32() -> None:
    (dit,) = build_networks(get_preset("lingbot-world-fast")).dits
    stored = {name: dit.storage_dtype(name, torch.bfloat16) for name in dit.state_dict()}
    full = {name for name, dtype in stored.items() if dtype == torch.float32}
    assert "blocks.39.modulation" in full and "time_projection.1.weight" in full
    assert "head.head.weight" in full and "blocks.0.ffn.0.weight" not in full
