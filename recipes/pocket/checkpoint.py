"""Training checkpoints: one file, replaced atomically, holding all that a resumed run needs.

Data and noise of step n are drawn from generators seeded by (seed, n), so the step number is the
whole random state and a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a full disk or a killed process leaves the old file whole."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only)."""
    return torch.load(path, map_location="cpu", weights_only=True)


def step_rng(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """The generator that chooses the data of one step on one process."""
    return np.random.default_rng((seed, step, rank))


def step_noise(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The generator that draws the noise of one step on one process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank)
