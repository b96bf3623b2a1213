"""Networks built from a recorded weights file: its config gives the sizes, its tensors the rest.

Everything loads strictly, so a name or shape that differs from ours is an error, not a skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from worldline.bench.parity_case import GoldenFile
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.wan.params import UMT5Params, WanVAEParams
from worldline.models.wan.text import UMT5Encoder
from worldline.models.wan.vae import WanVAE

# Code defaults of the official encoder; its config does not carry them.
_MAX_DISTANCE = 128
_EPS = 1e-6
Network = TypeVar("Network", bound=nn.Module)

_CONTROL = "patch_embedding_wancamctrl.weight"
# A control channel becomes 8x8 pixels of a cell, and 2x2 cells make one token.
_WIDTH_PER_CHANNEL = 8 * 8 * 2 * 2


def dit_params(config: dict[str, Any], control_width: int) -> DiTParams:
    """Sizes of a DiT from its recorded config and the input width of its control embedding."""
    same = ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "freq_dim")
    sizes = {name: int(config[name]) for name in (*same, "text_dim", "text_len")}
    return DiTParams(
        **sizes, eps=float(config["eps"]), control_dim=control_width // _WIDTH_PER_CHANNEL
    )


def load_dit(path: Path) -> LingBotDiT:
    """The DiT of a weights file, float32; raises `CheckpointError` or torch's key errors."""
    golden = GoldenFile(path)
    return _filled(LingBotDiT(dit_params_of(golden)), golden)


def load_vae(path: Path, mean: Sequence[float], std: Sequence[float]) -> WanVAE:
    """The VAE of a weights file under the given latent statistics; raises as `load_dit`."""
    golden = GoldenFile(path)
    return _filled(WanVAE(vae_params_of(golden, mean, std)), golden)


def load_umt5(path: Path) -> UMT5Encoder:
    """The text encoder of a weights file; raises as `load_dit`."""
    golden = GoldenFile(path)
    return _filled(UMT5Encoder(umt5_params_of(golden)), golden)


def dit_params_of(golden: GoldenFile) -> DiTParams:
    """Sizes of the DiT in a weights file."""
    return dit_params(golden.config("config"), golden[_CONTROL].shape[1])


def vae_params_of(golden: GoldenFile, mean: Sequence[float], std: Sequence[float]) -> WanVAEParams:
    """Sizes of the VAE in a weights file."""
    config = golden.config("config")
    return WanVAEParams(
        dim=config["dim"],
        z_dim=config["z_dim"],
        dim_mult=tuple(config["dim_mult"]),
        num_res_blocks=config["num_res_blocks"],
        temporal_downsample=tuple(config["temperal_downsample"]),
        mean=tuple(mean),
        std=tuple(std),
    )


def umt5_params_of(golden: GoldenFile) -> UMT5Params:
    """Sizes of the text encoder in a weights file."""
    config = golden.config("config")
    same = ("vocab", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets")
    sizes = {name: int(config[name]) for name in same}
    distance, eps = int(config.get("max_distance", _MAX_DISTANCE)), float(config.get("eps", _EPS))
    return UMT5Params(**sizes, max_distance=distance, eps=eps)


def _filled(network: Network, golden: GoldenFile) -> Network:
    network.load_state_dict({name: golden[name] for name in golden.names()}, strict=True)
    return network.eval().requires_grad_(False)
