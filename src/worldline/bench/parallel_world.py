"""A small world with twelve heads and random weights: to try sharing out on any CPU, in seconds.

Two blocks of the published architecture, and its autoencoder narrow and shallow; no files. Twelve
heads go evenly on 2, 3, 4, 6 and 12 ranks.
"""

from __future__ import annotations

import msgspec
import torch

from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import Preset
from worldline.models.registry import get_preset
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.vae import WanVAE
from worldline.ops.collectives import ALONE, Collectives
from worldline.runtime.engine import World
from worldline.runtime.fill import fill_random
from worldline.runtime.loader import Components
from worldline.runtime.stand_in import RandomText

NAME = "small"
SEED = 0
LATENT = 16
VAE = WanVAEParams(
    dim=4,
    z_dim=LATENT,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=1,
    temporal_downsample=(False, True, True),
    mean=(0.0,) * LATENT,
    std=(1.0,) * LATENT,
)


def small_preset() -> Preset:
    """`lingbot-world-fast` with small numbers; a window that rolls over in the third chunk."""
    fast = get_preset("lingbot-world-fast")
    changed = {"dim": 96, "ffn_dim": 128, "num_heads": 12, "num_layers": 2}
    text = {"freq_dim": 32, "text_dim": 24, "text_len": 16}
    return msgspec.structs.replace(
        fast,
        name=NAME,
        dit=msgspec.structs.replace(fast.dit, **changed, **text),
        vae=VAE,
        width=64,
        height=48,
        sizes=((64, 48),),
        chunk=3,
        window=7,
        sink=2,
    )


def small_world(group: Collectives = ALONE) -> World:
    """The world, as a rank of `group`; float32 on the CPU, the same on every rank."""
    preset, cpu = small_preset(), torch.device("cpu")
    dit, vae = LingBotDiT(preset.dit), WanVAE(VAE)
    for label, module in (("transformer", dit), ("autoencoder", vae)):
        fill_random(module, device=cpu, dtype_of=_full, seed=SEED, label=label)
    numbers = preset.dit
    text = RandomText(
        numbers.text_len, numbers.text_dim, seed=SEED, device=cpu, dtype=torch.float32
    )
    components = Components(preset=preset, dit=dit, vae=vae, text=text, weights_id=NAME)
    return World(components, group=group)


def _full(name: str) -> torch.dtype:
    del name
    return torch.float32
