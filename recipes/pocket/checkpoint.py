"""Training checkpoints: one file, replaced atomically, holding all that a resumed run needs.

Data and noise of step n are drawn from generators seeded by (seed, n), so the step number is the
whole random state and a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from worldline.core.errors import CheckpointError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a full disk or a killed process leaves the old file whole.

    Raises `CheckpointError` rather than replace good weights by lost ones, `OSError` or
    `RuntimeError` from the disk.
    """
    weights: dict[str, torch.Tensor] = state.get("model", {})
    lost = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if lost:
        raise CheckpointError(
            f"{path} stays as it was: the training is lost", expected="finite weights", got=lost[0]
        )
    with whole_or_not(path) as file:
        torch.save(state, file)


@contextmanager
def whole_or_not(path: Path) -> Iterator[BinaryIO]:
    """A file that stands at `path` only once all of it is on the disk."""
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # half a file would keep a full disk full


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only). Raises `CheckpointError`."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read", expected="a checkpoint of this recipe", got=error
        ) from error


def step_rng(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """The generator that chooses the data of one step on one process."""
    return np.random.default_rng((seed, step, rank))


def step_noise(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The generator that draws the noise of one step on one process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank)
