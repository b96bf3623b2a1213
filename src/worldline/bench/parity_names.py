"""Parity group of the name tables: `*.keys.json` (name to shape) and `*_key_map_*.json`.

Our networks, built without memory from the sizes in the weights files beside the table, must have
exactly these names and shapes, and our conversion tables must lead back to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldline.bench.parity_case import CaseResult, Difference, GoldenFile, judge
from worldline.bench.parity_networks import dit_params_of, umt5_params_of, vae_params_of
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.wan.convert import umt5_key_from_hf, vae_key_from_diffusers
from worldline.models.wan.text import UMT5Encoder
from worldline.models.wan.vae import WanVAE

_MAP = "_key_map_"
# Published component layouts: their names must lead back to the original ones.
_CONVERSIONS: dict[str, Callable[[str], str]] = {
    "vae_key_map_original_to_diffusers": vae_key_from_diffusers,
    "umt5_key_map_original_to_hf": umt5_key_from_hf,
}


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """One row per table."""
    if _MAP in path.stem:
        yield judge(path.name, "names", lambda: _check_map(path, directory))
    else:
        yield judge(path.name, "names and shapes", lambda: _check_shapes(path, directory))


def _check_shapes(path: Path, directory: Path) -> Iterator[Difference]:
    weights = GoldenFile(directory / path.name.replace(".keys.json", ".safetensors"))
    want = {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    stored = {name: tuple(weights[name].shape) for name in weights.names()}
    yield _same("weights file", stored, want)
    yield _same("network", _shapes(weights), want)


def _check_map(path: Path, directory: Path) -> Iterator[Difference]:
    table: dict[str, str] = json.loads(path.read_text())
    component = path.stem.partition(_MAP)[0]
    weights = GoldenFile(sorted(directory.glob(f"{component}_weights*.safetensors"))[0])
    yield _same("network", dict.fromkeys(_shapes(weights)), dict.fromkeys(table))
    convert = _CONVERSIONS.get(path.stem)
    if convert is not None:
        back = {convert(theirs): theirs for theirs in table.values()}
        yield _same("conversion", back, table)


def _shapes(weights: GoldenFile) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = _network(weights)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _network(weights: GoldenFile) -> nn.Module:
    """The kind of network is told by its config: each of the three has a field of its own."""
    config: dict[str, Any] = weights.config("config")
    if "vocab" in config:
        return UMT5Encoder(umt5_params_of(weights))
    if "z_dim" in config:
        width = int(config["z_dim"])
        return WanVAE(vae_params_of(weights, [0.0] * width, [1.0] * width))
    return LingBotDiT(dit_params_of(weights))


def _same(name: str, ours: dict[str, Any], want: dict[str, Any]) -> Difference:
    """0 when both say the same, else the number of entries that differ."""
    wrong = sorted(k for k in ours.keys() | want.keys() if ours.get(k, k) != want.get(k, k))
    wrong += sorted(ours.keys() ^ want.keys())
    problem = f"{name} differs at {len(set(wrong))} names: {', '.join(wrong[:4])}" if wrong else ""
    return Difference(name, float(len(set(wrong))), 0.0, problem)
