"""The stage that teaches the decoder to forgive the world model: pairs, gradients, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import checkpoint, tune_decoder
from recipes.pocket.data import write_atomically
from recipes.pocket.rollout import roll_shard
from recipes.pocket.sequences import read_grey
from recipes.pocket.shards import encoder_print
from recipes.pocket.stage import train
from recipes.pocket.streaming import euler_times
from recipes.pocket.train_vae import Settings, fold_group, to_folded
from recipes.pocket.tune_decoder import LATENTS, Tuner, Walk, draw, load_pairs, loss_fn
from tests.recipes.small import autoencoder, vae_trainer, world_model
from worldline.core.errors import CheckpointError, InputError, ShapeError

SETTINGS = Settings(steps=2, size=2, every=1, rate=5e-4)
OWN = encoder_print(autoencoder().state_dict())


@pytest.fixture(scope="module")
def predicted(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a tiny model makes of each latent frame from the true past."""
    folder, (grey, encoder) = tmp_path_factory.mktemp("predicted"), read_grey(encoded)
    source = encoded / "walks-0000.npz"
    guesses = roll_shard(world_model(noise=0.02), source, grey, times=euler_times(1), forced=True)
    name = np.array(encoder)
    write_atomically(folder / "walks-0000.npz", rolled=guesses, encoder_print=name)
    return folder


@pytest.fixture(scope="module")
def pairs(walks: Path, encoded: Path, predicted: Path) -> list[Walk]:
    """The three walks with their predictions."""
    return load_pairs(walks, encoded, predicted, encoder=OWN)[0]


def test_forced_predictions_see_the_true_past(encoded: Path, predicted: Path) -> None:
    """Another truth at frame 3 changes what is predicted later, and nothing before."""
    grey, _ = read_grey(encoded)
    with np.load(encoded / "walks-0000.npz") as shard:
        fields = {name: shard[name] for name in shard.files}
    latents = fields["latents"].copy()
    latents[:, 3] += 0.5
    other = predicted / "other-0000.npz"
    write_atomically(other, **{**fields, "latents": latents})
    before, after = (
        roll_shard(world_model(noise=0.02), path, grey, times=euler_times(1), forced=True)
        for path in (encoded / "walks-0000.npz", other)
    )
    assert np.array_equal(before[:, :4], after[:, :4])
    for i in range(4, 9):
        assert not np.array_equal(before[:, i], after[:, i]), i


def test_pairs_are_pictures_and_their_latents(
    pairs: list[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_decoder, "LIMIT", np.inf)
    kinds = set()
    for seed in range(30):
        pair = draw(pairs, np.random.default_rng(seed), 1, checkpoint.step_noise(1, seed))
        assert pair.x.shape == (1, LATENTS + 1, 12, 96, 160)
        assert pair.z.shape == (1, LATENTS + 1, 16, 12, 20)
        assert pair.counts[0, 1:].all()
        lead = bool(pair.counts[0, 0])
        kinds.add(origin(pairs, pair.x[0], pair.z[0], lead=lead))
    assert {kind for kind, _ in kinds} == {"own", "still", "predicted"}
    assert {lead for _, lead in kinds} == {True, False}


def origin(walks: list[Walk], x: torch.Tensor, z: torch.Tensor, *, lead: bool) -> tuple[str, bool]:
    """Which walk's pictures and which latents of it these are; fails if they do not belong."""
    for walk in walks:
        for first in range(len(walk.latents) - LATENTS):
            part = range(first, first + LATENTS + 1)
            groups = [to_folded(fold_group(walk.frames, i, still=False)) for i in part]
            if not torch.equal(x[1:], torch.stack(groups[1:])):
                continue
            if torch.equal(z, torch.from_numpy(walk.predicted[list(part)].astype(np.float32))):
                assert lead == (first == 0)
                return "predicted", lead
            own = torch.from_numpy(walk.latents[list(part)].astype(np.float32))
            assert (z[1:] - own[1:]).std() < 0.11, "noise of at most .1"
            still = torch.equal(x[0], to_folded(fold_group(walk.frames, first, still=True)))
            if still and lead and first > 0:
                begun = torch.from_numpy(walk.stills[first].astype(np.float32))
                assert (z[0] - begun).std() < 0.11
                return "still", lead
            return "own", lead
    raise AssertionError("these pictures are of no walk")


def test_a_prediction_of_another_place_is_not_used(
    pairs: list[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_decoder, "LIMIT", 0.0)
    monkeypatch.setattr(tune_decoder, "NOISE", 0.0)
    for seed in range(8):
        pair = draw(pairs, np.random.default_rng(seed), 1, checkpoint.step_noise(1, seed))
        latents = [torch.from_numpy(walk.latents.astype(np.float32)) for walk in pairs]
        assert any(
            torch.equal(pair.z[0, 1:], z[i : i + LATENTS]) for z in latents for i in range(1, 6)
        )


def test_gradients_reach_the_decoder_and_nothing_else(pairs: list[Walk], tmp_path: Path) -> None:
    vae = autoencoder()
    tuner = Tuner(vae, pairs, tmp_path / "vae.pt", settings=SETTINGS)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    name = encoder_print(before)
    for _ in range(3):
        tuner.train_step()
    changed = {n for n, tensor in vae.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {n for n, _ in vae.named_parameters() if n.startswith("dec_")}
    assert encoder_print(tuner.ema) == encoder_print(vae.state_dict()) == name


def test_frames_that_only_give_a_past_cost_nothing(pairs: list[Walk]) -> None:
    vae = autoencoder()
    pair = draw(pairs, np.random.default_rng(0), 2, checkpoint.step_noise(1, 0))
    lead = torch.cat([torch.zeros(2, 1, 1, 1, 1), pair.counts[:, 1:]], dim=1)
    pair = pair._replace(counts=lead)
    other = pair._replace(x=torch.cat([pair.x[:, :1] + 0.3, pair.x[:, 1:]], dim=1))
    assert torch.equal(loss_fn(vae, pair), loss_fn(vae, other))
    counted = other._replace(counts=torch.ones_like(lead))
    assert not torch.equal(loss_fn(vae, pair), loss_fn(vae, counted))


def test_tuning_resumes_bit_for_bit_and_counts_on(pairs: list[Walk], tmp_path: Path) -> None:
    for name, stops in (("whole", (2,)), ("parts", (1, 2))):
        for stop in stops:
            settings = SETTINGS._replace(steps=stop)
            path = tmp_path / f"{name}.pt"
            train(Tuner(autoencoder(), pairs, path, settings=settings, made=600), pairs[:1])
    whole, parts = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    for kind in ("model", "ema"):
        for name, tensor in whole[kind].items():
            assert torch.equal(tensor, parts[kind][name]), name
    assert (parts["tuned"], parts["step"]) == (2, 600)


def test_tuning_refuses_what_is_not_its_own(
    walks: Path, encoded: Path, predicted: Path, pairs: list[Walk], tmp_path: Path
) -> None:
    frames = np.stack([walk.frames[:17] for walk in pairs])
    vae_trainer(frames, tmp_path / "vae.pt", steps=1).save()
    with pytest.raises(InputError, match=r"not of this stage.*got the vae\.pt of train_vae"):
        Tuner(autoencoder(), pairs, tmp_path / "vae.pt", settings=SETTINGS)
    Tuner(autoencoder(), pairs, tmp_path / "tuned.pt", settings=SETTINGS).save()
    with pytest.raises(CheckpointError, match="two autoencoders"):
        Tuner(autoencoder(seed=9), pairs, tmp_path / "tuned.pt", settings=SETTINGS)
    other = encoder_print(autoencoder(seed=9).state_dict())
    with pytest.raises(CheckpointError, match=rf"expected encoder {other} as in --vae"):
        load_pairs(walks, encoded, predicted, encoder=other)
    with pytest.raises(InputError, match="no predicted latents"):
        load_pairs(walks, encoded, tmp_path, encoder=OWN)
    write_atomically(tmp_path / "walks-0000.npz", rolled=np.zeros((3, 8, 16, 12, 20)))
    with pytest.raises(ShapeError, match=r"rolled in .*expected \[3, 9, 16, 12, 20\]"):
        load_pairs(walks, encoded, tmp_path, encoder=OWN)
