"""Rendered and encoded walks that all tests of the pocket recipe share; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

WALKS, LATENTS = 3, 9


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard of three short walks, one per world."""
    pytest.importorskip("numba", reason="the recipe renders with numba")
    from recipes.pocket.data import make_shard, write_atomically

    folder = tmp_path_factory.mktemp("walks")
    shard = make_shard(0, "test", walks=WALKS, latents=LATENTS)
    write_atomically(folder / "walks-0000.npz", **shard)
    return folder


@pytest.fixture(scope="session")
def frames(walks: Path) -> np.ndarray:
    """The walks' pictures, uint8 `[3, 17, H, W, 3]`."""
    with np.load(walks / "walks-0000.npz") as shard:
        return shard["frames"][:, :17]


@pytest.fixture(scope="session")
def encoded(walks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard's latents by a barely initialised autoencoder."""
    pytest.importorskip("numba", reason="the recipe renders with numba")
    from recipes.pocket.encode import encode_shard, write_grey
    from tests.recipes.small import autoencoder

    folder, vae = tmp_path_factory.mktemp("latents"), autoencoder()
    write_grey(vae, folder)
    encode_shard(vae, walks / "walks-0000.npz", folder / "walks-0000.npz")
    return folder
