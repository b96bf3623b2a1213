"""The pocket recipe on a few tiny walks: data, both trainings, resuming, export, loading."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import checkpoint, sequences
from recipes.pocket import train_vae as vae_recipe
from recipes.pocket.data import make_shard, write_atomically
from recipes.pocket.encode import encode_shard, grey_latent
from recipes.pocket.export import collect, config_json, load_pocket, write
from recipes.pocket.rollout import roll_shard
from recipes.pocket.sequences import Sequences
from recipes.pocket.streaming import Stream
from recipes.pocket.train_dit import Settings, Trainer, draw_noise
from recipes.pocket.world_model import POCKET_DIT, WINDOW, Noisy, Prompts, WorldModel
from worldline.models.pocket.params import POCKET_TEXT, PocketVAEParams
from worldline.models.pocket.vae import PocketVAE

VAE = PocketVAEParams(latent_channels=16, encoder=(8, 8), decoder=(8, 8, 8), blocks=2)
DIT = msgspec.structs.replace(POCKET_DIT, dim=24, ffn_dim=32, num_heads=2, num_layers=2)
SETTINGS = Settings(steps=4, decay=2, size=2)


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of three short walks, one per world."""
    folder = tmp_path_factory.mktemp("walks")
    shard = make_shard(0, "test", walks=3, latents=WINDOW + 1)
    write_atomically(folder / "walks-0000.npz", **shard)
    return folder


@pytest.fixture(scope="module")
def encoded(walks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard's latents by a barely initialised autoencoder."""
    folder = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    vae = PocketVAE(VAE).eval()
    with torch.no_grad():
        vae.pca.normal_(std=0.05)
    encode_shard(vae, walks / "walks-0000.npz", folder / "walks-0000.npz")
    write_atomically(folder / "grey.npz", grey=grey_latent(vae, 96, 160))
    return folder


def trainer(path: Path) -> Trainer:
    torch.manual_seed(3)
    return Trainer(WorldModel(DIT), SETTINGS, path)


def test_shards_are_reproducible(walks: Path) -> None:
    with np.load(walks / "walks-0000.npz") as shard:
        again = make_shard(0, "test", walks=1, latents=3)
        assert np.array_equal(again["frames"][0, :1], shard["frames"][0, :1])
        assert np.array_equal(again["rel"][0], shard["rel"][0, :3])
        assert shard["frames"].shape == (3, 4 * WINDOW + 1, 96, 160, 3)
        assert shard["frames"].std() > 10


def test_a_resumed_run_equals_an_uninterrupted_one(encoded: Path, tmp_path: Path) -> None:
    data = Sequences(encoded)
    whole = trainer(tmp_path / "whole.pt")
    losses = [whole.train_step(data, 0) for _ in range(4)]
    first = trainer(tmp_path / "parts.pt")
    again = [first.train_step(data, 0) for _ in range(2)]
    first.save()
    second = trainer(tmp_path / "parts.pt")
    again += [second.train_step(data, 0) for _ in range(2)]
    assert losses == again
    assert second.step == 4
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
        assert torch.equal(whole.ema[name], second.ema[name]), name


def test_training_changes_what_it_should(encoded: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "dit.pt")
    before = {name: t.clone() for name, t in run.model.state_dict().items()}
    for _ in range(3):
        run.train_step(Sequences(encoded), 0)
    still = [name for name, t in run.model.state_dict().items() if torch.equal(t, before[name])]
    assert still == [], "parameters that no gradient reaches"


def test_the_models_own_past_becomes_context_and_never_target(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    with np.load(encoded / "grey.npz") as file:
        rolled = roll_shard(
            WorldModel(DIT).eval(), encoded / "walks-0000.npz", file["grey"], times=euler_times(1)
        )
    write_atomically(tmp_path / "walks-0000.npz", rolled=rolled)
    monkeypatch.setattr(sequences, "ROLLED_LIMIT", np.inf)
    monkeypatch.setattr(sequences, "ROLLED_SHARE", 1.0)
    data = Sequences(encoded, rolled=tmp_path)
    assert data.rolled.shape == data.latents.shape
    batch = data.draw(checkpoint.step_rng(1, 1), 4, WINDOW)
    assert not torch.equal(batch.past, batch.x0)
    true = torch.from_numpy(data.latents.astype(np.float32)).transpose(1, 2)  # n 16 L h w
    starts = [true[:, :, first : first + WINDOW] for first in (0, 1)]
    for target in batch.x0:
        assert any(torch.equal(target, walk) for start in starts for walk in start)
    monkeypatch.setattr(sequences, "ROLLED_LIMIT", 0.0)
    lost = data.draw(checkpoint.step_rng(1, 1), 4, WINDOW)
    assert torch.equal(lost.past, lost.x0)


def test_a_killed_save_leaves_the_old_checkpoint(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "dit.pt")
    run.save()

    def full_disk(state: object, file: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    run.train_step(Sequences(encoded), 0)
    with pytest.raises(OSError, match="no space"):
        run.save()
    assert checkpoint.load(tmp_path / "dit.pt")["step"] == 0


@torch.no_grad()
def test_teacher_forcing_equals_streaming(encoded: Path) -> None:
    torch.manual_seed(1)
    model = WorldModel(DIT).eval()
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    batch = Sequences(encoded).draw(checkpoint.step_rng(1, 1), 2, WINDOW)
    noisy, _ = draw_noise(batch, checkpoint.step_noise(1, 1))
    when = torch.full((2, WINDOW), 0.8)
    since = torch.tensor([3, WINDOW])  # one prompt changes on the way
    first, after = (model.text.rows(words) for words in (["red pillars", "snow"], ["dusk", "fog"]))
    rope = model.dit.rope(range(WINDOW), 6, 10)
    inputs = Noisy(batch.x0, noisy.noisy, torch.zeros_like(when), when)
    prompts = Prompts(first, after, since)
    whole = model(inputs, y=batch.y, camera=batch.camera, prompts=prompts, rope=rope)
    stream = Stream(model, first)
    for i in range(WINDOW):
        if i == since[0]:
            stream.say(torch.stack([after[0], first[1]]))
        part = slice(i, i + 1)
        given = batch.y[:, :, part], batch.camera[:, :, part]
        x = inputs.noisy[:, :, part]
        sampled = stream.step(*given, x, times=(0.8, 0.0))  # one Euler step: x - .8 flow
        torch.testing.assert_close((x - sampled) / 0.8, whole[:, :, part], atol=2e-5, rtol=1e-4)
        stream.commit(batch.x0[:, :, part], *given)


def test_vae_training_resumes_and_the_file_loads(
    walks: Path, encoded: Path, tmp_path: Path
) -> None:
    with np.load(walks / "walks-0000.npz") as shard:
        frames = shard["frames"][:, :17]

    def autoencoder(name: str, steps: int) -> vae_recipe.Trainer:
        settings = vae_recipe.Settings(steps=steps, size=2, pca_groups=4)
        return vae_recipe.Trainer(VAE, frames, tmp_path / f"{name}.pt", settings=settings)

    vae_recipe.train(autoencoder("whole", 2), frames[:1, :5])
    vae_recipe.train(autoencoder("parts", 1), frames[:1, :5])
    vae_recipe.train(autoencoder("parts", 2), frames[:1, :5])
    whole, parts = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert all(torch.equal(t, parts["model"][name]) for name, t in whole["model"].items())

    run = trainer(tmp_path / "dit.pt")
    run.train_step(Sequences(encoded), 0)
    metadata = {"preset": "pocket", "config": config_json(DIT, VAE, POCKET_TEXT)}
    write(tmp_path / "tiny.safetensors", collect(whole["ema"], run.ema), metadata)
    vae, model = load_pocket(tmp_path / "tiny.safetensors", None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, run.ema[name].bfloat16().float()), name
    assert vae.params == VAE

    from worldline.runtime.loader import load_components

    loaded = load_components(str(tmp_path / "tiny.safetensors"), device="cpu")
    assert loaded.dit.params == DIT
    for name, tensor in loaded.dit.state_dict().items():
        assert torch.equal(tensor, model.dit.state_dict()[name]), name
