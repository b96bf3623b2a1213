"""A small model of the published classes with seeded random weights, for engine tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.preset import Preset
from worldline.models.registry import get_preset
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.vae import WanVAE
from worldline.runtime.engine import World
from worldline.runtime.loader import Components

WIDTH, HEIGHT = 48, 32
PROMPT = "a sandy court of tall red columns"


def dit_params(*, control_dim: int = 6) -> DiTParams:
    """Two blocks, two heads: every part of the architecture once or twice."""
    return DiTParams(
        dim=48,
        ffn_dim=64,
        num_heads=2,
        num_layers=2,
        in_dim=36,
        out_dim=16,
        freq_dim=32,
        text_dim=24,
        text_len=10,
        eps=1e-6,
        control_dim=control_dim,
    )


class HashText:
    """Text states made of the words' hashes; deterministic, no weights."""

    text_dim = 24

    def __init__(self, text_len: int = 10) -> None:
        self.text_len = text_len

    def encode(self, prompts: list[str]) -> torch.Tensor:
        """`[B, S, 24]`, zero rows after the last word."""
        states = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in enumerate(prompts):
            for i, word in enumerate(prompt.split()[: self.text_len]):
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=6).digest())
                generator = torch.Generator().manual_seed(seed)
                states[row, i] = torch.randn(self.text_dim, generator=generator)
        return states


def build(module: torch.nn.Module, seed: int) -> None:
    """Fill a module with seeded random weights, biases included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    module.requires_grad_(False).eval()


def preset(**changes: object) -> Preset:
    """`lingbot-world-fast` with small numbers."""
    base = get_preset("lingbot-world-fast")
    vae = WanVAEParams(
        dim=4,
        z_dim=16,
        dim_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        temporal_downsample=(False, True, True),
        mean=(0.0,) * 16,
        std=(1.0,) * 16,
    )
    small: dict[str, object] = {
        "dit": dit_params(),
        "vae": vae,
        "width": WIDTH,
        "height": HEIGHT,
        "sizes": ((WIDTH, HEIGHT), (HEIGHT, WIDTH)),
        "chunk": 3,
        "window": 7,
        "sink": 2,
    }
    return msgspec.structs.replace(base, **(small | changes))


def world(
    *,
    seed: int = 0,
    options: EngineOptions = DEFAULT_OPTIONS,
    without: Collection[str] = (),
    reanchor_at: int = 1024,
    text: HashText | None = None,
    **changes: object,
) -> World:
    """A world on the small model."""
    numbers = preset(**changes)
    assert isinstance(numbers.vae, WanVAEParams)
    dit, vae = LingBotDiT(numbers.dit), WanVAE(numbers.vae)
    build(dit, seed)
    build(vae, seed + 1)
    components = Components(
        preset=numbers, dit=dit, vae=vae, text=text or HashText(), weights_id="tiny"
    )
    return World(components, options=options, without=without, reanchor_at=reanchor_at)


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """A picture of noise, uint8 `H W 3`."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
