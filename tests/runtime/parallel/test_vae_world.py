"""The autoencoder of a whole world on several ranks: pictures, sharing switched off, previews."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from tests.preview import random_decoder
from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from tests.runtime.parallel.cases import Size
from worldline.core.errors import SnapshotError
from worldline.models.wan.tiny import PreviewVae
from worldline.ops.collectives import ALONE, Collectives
from worldline.runtime.engine import World
from worldline.runtime.parallel.far_vae import FarVae, attach
from worldline.runtime.parallel.group import Group
from worldline.runtime.parallel.vae import SharedVae, whole_vae
from worldline.runtime.parallel.vae_rank import VaeRank

ODD = Size(80, 48, 2)  # 10 latent columns: 4, 3 and 3
CLOSE_DB = 60.0


def decibels(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> float:
    error = np.square(ours.astype(float) - theirs).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


@pytest.mark.parametrize("decoder", ["full", "tiny"])
def test_viewers_see_what_one_rank_shows(decoder: str) -> None:
    def world(group: Collectives = ALONE) -> World:
        parts = cases.components(published=True)
        if decoder == "tiny":
            parts = dataclasses.replace(parts, preview=random_decoder())
        return World(parts, group=group)

    with cases.begin(world(), ODD) as session:
        alone = cases.walk(session, 3).frames

    def run(group: Group) -> tuple[NDArray[np.uint8], dict[str, int]]:
        with cases.begin(world(group), ODD) as session:
            group.traffic.clear()
            return cases.walk(session, 3).frames, dict(group.traffic.calls)

    (frames, calls), *others = on_ranks(3, run)
    assert decibels(frames, alone) >= CLOSE_DB
    assert all(other.shape == frames.shape for other, _ in others)
    # The tiny decoder is not worth sharing: every rank runs all of it. Encoding always is.
    assert calls["vae latents"] > 0 and ("vae frames" in calls) == (decoder == "full")


def test_a_session_that_is_not_shared_exchanges_nothing() -> None:
    with cases.begin(cases.world(), ODD) as session:
        alone = cases.walk(session, 2).frames

    def run(group: Group) -> tuple[NDArray[np.uint8], int]:
        with cases.begin(cases.world(group), ODD, sharded=False) as session:
            frames = cases.walk(session, 2).frames
        return frames, sum(n for name, n in group.traffic.calls.items() if name.startswith("vae"))

    for frames, calls in on_ranks(2, run):
        assert np.array_equal(frames, alone) and calls == 0


@pytest.mark.parametrize("own", [False, True])
def test_histories_of_shares_come_back_with_a_snapshot(own: bool, tmp_path: Path) -> None:
    """In memory; a file would hold one rank's columns, or a key, and is refused."""
    vae = cases.components().vae

    def walk(group: Group) -> bool:
        world = cases.world(ALONE if own else group, published=not own)
        if own:
            attach(world, group)
        with cases.begin(world, ODD) as session:
            session.step([("w",)] * 2)
            there = session.snapshot()
            once = [session.step([("w",)] * 2).frames for _ in range(2)]
            session.restore(there)
            again = [session.step([("w",)] * 2).frames for _ in range(2)]
            with pytest.raises(SnapshotError, match="several devices"):
                session.save(tmp_path / f"{group.rank}.snapshot")
        return all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))

    def run(group: Group) -> bool:
        if own and group.rank == 1:
            VaeRank(vae, group, device=torch.device("cpu")).serve()
            return True
        try:
            return walk(group)
        finally:
            if own:
                FarVae(vae, group).stop()

    assert on_ranks(2, run) == [True, True]
    assert not any(tmp_path.iterdir())


def test_a_tiny_decoder_keeps_its_place_when_nothing_is_shared() -> None:
    full, decoder = tiny.world().components.vae, random_decoder()
    whole = whole_vae(PreviewVae(SharedVae(full, ALONE), decoder))
    assert isinstance(whole, PreviewVae)
    assert whole.full is full and whole.tiny is decoder
