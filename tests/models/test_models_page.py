"""The numbers that docs/models.md states are the ones the code computes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from worldline.models.preset import Preset
from worldline.models.registry import PRESETS, get_preset
from worldline.runtime.memory import camera_modulation_bytes
from worldline.runtime.parts import Networks, build_networks

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text("utf-8")
LIVE = ("lingbot-world-fast", "lingbot-world-v2-14b", "lingbot-world-v2-1.3b")
GUIDED = "lingbot-world-v2-14b-pretrain"
BASE = ("lingbot-world-base-cam", "lingbot-world-base-act")


def table_row(heading: str, preset: str) -> list[str]:
    """Cells of a preset's row in the table whose head has `heading`."""
    table = PAGE[PAGE.index(heading) :]
    (line,) = re.findall(
        rf"^\| (?:\[)?`{re.escape(preset)}`.*$", table[: table.index("\n\n")], re.M
    )
    return [cell.strip() for cell in line.strip("|").split("|")]


@cache
def networks(preset: str) -> Networks:
    return build_networks(get_preset(preset))


def gigabytes(module: nn.Module, dtype: torch.dtype) -> str:
    """Bytes of a network whose matmuls run in `dtype`."""
    rule = getattr(module, "storage_dtype", lambda name, dtype: dtype)
    state = module.state_dict().items()
    return f"{sum(t.numel() * rule(name, dtype).itemsize for name, t in state) / 1e9:.2f}"


def cache_gigabytes(preset: Preset, size: tuple[int, int]) -> str:
    """Bytes of a full window at a size in pixels, bfloat16."""
    assert preset.window is not None
    tokens = size[0] // 16 * (size[1] // 16)
    return f"{4 * preset.dit.num_layers * preset.dit.dim * tokens * preset.window / 1e9:.2f}"


def test_every_preset_has_its_page() -> None:
    for name in PRESETS:
        assert f"\n## {name}\n" in PAGE


@pytest.mark.parametrize("name", PRESETS)
def test_overview(name: str) -> None:
    preset = get_preset(name)
    row = table_row("| preset | control |", name)
    steps = f"{len(preset.sampler.steps)} "
    assert row[3].startswith(steps) and row[3].endswith(f", {preset.sampler.shift:g}")
    assert row[4] == preset.licence and (row[5] == "yes") == preset.live
    frames = f"{preset.chunk} / {preset.window} / {preset.sink}"
    assert row[2] == ("whole clip" if preset.bidirectional else frames)


@pytest.mark.parametrize("name", [*LIVE, GUIDED, *BASE])
def test_weights(name: str) -> None:
    row, parts = table_row("| GB (10", name), networks(name)
    dit = gigabytes(parts.dits[0], torch.bfloat16)
    assert row[1] == (dit if len(parts.dits) == 1 else f"2 x {dit}")
    assert row[2] == gigabytes(parts.text, torch.bfloat16)
    assert row[3] == gigabytes(parts.vae, torch.float32)


@pytest.mark.parametrize("name", LIVE)
def test_caches(name: str) -> None:
    row, preset = table_row("| GB (10", name), get_preset(name)
    assert preset.chunk is not None
    assert row[4] == cache_gigabytes(preset, (832, 480))
    large = (1280, 720)
    assert row[5] == (cache_gigabytes(preset, large) if large in preset.sizes else "-")
    assert row[6] == f"{4 * preset.dit.num_layers * preset.dit.dim * 512 / 1e9:.2f}"
    camera = camera_modulation_bytes(preset.dit, 1560 * preset.chunk, dtype=torch.bfloat16)
    assert row[7] == f"{camera / 1e9:.2f}"


def test_a_guided_model_keeps_everything_twice_that_depends_on_the_prompt() -> None:
    guided = table_row("| GB (10", GUIDED)
    distilled = table_row("| GB (10", "lingbot-world-v2-14b")
    assert guided[4:7] == [f"2 x {cell}" for cell in distilled[4:7]]
    assert guided[7] == distilled[7]


@pytest.mark.parametrize("name", LIVE)
def test_sum_on_the_page_of_a_preset(name: str) -> None:
    row = table_row("| GB (10", name)
    total = sum(float(cell) for cell in row[1:5])
    page = PAGE[PAGE.index(f"\n## {name}\n") :]
    assert f"Memory: {total:.1f} GB weights and cache at 480p" in page[: page.index("\n## ", 5)]
