"""Tiny networks and trainings of the pocket recipe, for its tests."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

import msgspec
import numpy as np
import torch

from recipes.pocket import train_vae
from recipes.pocket.train_dit import Settings, Trainer
from recipes.pocket.world_model import POCKET_DIT, WorldModel
from worldline.models.pocket.params import PocketVAEParams
from worldline.models.pocket.vae import PocketVAE

VAE = PocketVAEParams(latent_channels=16, encoder=(8, 8), decoder=(8, 8, 8), blocks=2)
DIT = msgspec.structs.replace(POCKET_DIT, dim=24, ffn_dim=32, num_heads=2, num_layers=2)
SETTINGS = Settings(steps=4, decay=2, size=2)


def autoencoder(seed: int = 0) -> PocketVAE:
    """A barely initialised autoencoder."""
    torch.manual_seed(seed)
    vae = PocketVAE(VAE).eval()
    with torch.no_grad():
        vae.pca.normal_(std=0.05)
    return vae


def world_model(seed: int = 2, *, noise: float = 0.0) -> WorldModel:
    """A tiny model; `noise` moves every weight, so that nothing is zero any more."""
    torch.manual_seed(seed)
    model = WorldModel(DIT).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def dit_trainer(path: Path, *, encoder: str | None = None, size: int = 2) -> Trainer:
    """The world model's training, the same from the start each time."""
    torch.manual_seed(3)
    return Trainer(WorldModel(DIT), SETTINGS._replace(size=size), path, encoder=encoder)


def vae_trainer(frames: np.ndarray, path: Path, *, steps: int, size: int = 2) -> train_vae.Trainer:
    """The autoencoder's training."""
    settings = train_vae.Settings(steps=steps, size=size, pca_groups=4, every=1)
    return train_vae.Trainer(VAE, frames, path, settings=settings)


def sit(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """A process of a run that says it is there and then waits for its end."""
    print(f"rank {rank} of {ranks}", flush=True)
    threading.Event().wait()
