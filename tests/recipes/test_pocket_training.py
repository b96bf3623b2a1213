"""The pocket recipe on a few tiny walks: data, both trainings, resuming, beginning, export."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import checkpoint, sequences
from recipes.pocket import train_vae as vae_recipe
from recipes.pocket.data import make_shard, write_atomically
from recipes.pocket.export import collect, config_json, load_pocket, write
from recipes.pocket.processes import join, leave, start
from recipes.pocket.rollout import roll_shard
from recipes.pocket.sequences import Sequences, read_grey
from recipes.pocket.stage import train
from recipes.pocket.streaming import Stream, euler_times
from recipes.pocket.train_dit import begin_from, draw_noise
from recipes.pocket.world_model import WINDOW, Noisy, Prompts, WorldModel
from tests.recipes.small import DIT, VAE, dit_trainer, vae_trainer, world_model
from worldline.models.pocket.params import POCKET_TEXT


def test_shards_are_reproducible(walks: Path) -> None:
    with np.load(walks / "walks-0000.npz") as shard:
        again = make_shard(0, "test", walks=1, latents=3)
        assert np.array_equal(again["frames"][0, :1], shard["frames"][0, :1])
        assert np.array_equal(again["rel"][0], shard["rel"][0, :3])
        assert shard["frames"].shape == (3, 4 * WINDOW + 1, 96, 160, 3)
        assert shard["frames"].std() > 10


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_resumed_run_equals_an_uninterrupted_one(encoded: Path, tmp_path: Path) -> None:
    data = Sequences(encoded)
    whole = dit_trainer(tmp_path / "whole.pt")
    losses = [whole.train_step(data, 0) for _ in range(4)]
    first = dit_trainer(tmp_path / "parts.pt")
    again = [first.train_step(data, 0) for _ in range(2)]
    first.save()
    second = dit_trainer(tmp_path / "parts.pt")
    again += [second.train_step(data, 0) for _ in range(2)]
    assert losses == again
    assert second.step == 4
    assert_same(whole.model.state_dict(), second.model.state_dict())
    assert_same(whole.ema, second.ema)


def train_in_parts(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """One of two processes: both networks, once in one go and once with a break after two steps."""
    torch.set_num_threads(1)
    join(rank, ranks, args.out)
    data = Sequences(args.data)
    for name, stop in (("whole", 4), ("parts", 2), ("parts", 4)):
        dit = dit_trainer(args.out / f"{name}-dit.pt", size=1)
        vae = vae_trainer(args.frames, args.out / f"{name}-vae.pt", steps=4, size=1)
        torch.distributed.barrier()  # both have read before one writes
        while dit.step < stop:
            dit.train_step(data, rank)
            vae.train_step(rank)
        if rank == 0:
            dit.save()
            vae.save()
        torch.distributed.barrier()
        checkpoint.save(args.out / f"{name}-{rank}.pt", {"model": dit.model.state_dict()})
    leave()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_resume_as_one_run(encoded: Path, frames: np.ndarray, tmp_path: Path) -> None:
    args = argparse.Namespace(data=encoded, frames=frames, out=tmp_path)
    start(train_in_parts, 2, args)
    for name in ("dit", "vae"):
        whole, parts = (checkpoint.load(tmp_path / f"{n}-{name}.pt") for n in ("whole", "parts"))
        assert whole["step"] == parts["step"] == 4
        assert_same(whole["model"], parts["model"])
        assert_same(whole["ema"], parts["ema"])
    first, second = (checkpoint.load(tmp_path / f"parts-{rank}.pt") for rank in (0, 1))
    assert_same(first["model"], second["model"])
    alone = dit_trainer(tmp_path / "alone.pt", size=1)
    for _ in range(4):
        alone.train_step(Sequences(encoded), 0)
    parts = checkpoint.load(tmp_path / "parts-dit.pt")["model"]
    name = "dit.head.head.weight"
    assert not torch.equal(parts[name], alone.model.state_dict()[name]), "one process did all"


def test_training_changes_what_it_should(encoded: Path, tmp_path: Path) -> None:
    run = dit_trainer(tmp_path / "dit.pt")
    before = {name: t.clone() for name, t in run.model.state_dict().items()}
    for _ in range(3):
        run.train_step(Sequences(encoded), 0)
    still = [name for name, t in run.model.state_dict().items() if torch.equal(t, before[name])]
    assert still == [], "parameters that no gradient reaches"


def test_the_models_own_past_becomes_context_and_never_target(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey, _ = read_grey(encoded)
    rolled = roll_shard(world_model(), encoded / "walks-0000.npz", grey, times=euler_times(1))
    write_atomically(tmp_path / "walks-0000.npz", rolled=rolled)
    monkeypatch.setattr(sequences, "ROLLED_LIMIT", np.inf)
    monkeypatch.setattr(sequences, "ROLLED_SHARE", 1.0)
    with pytest.warns(UserWarning, match="1 files do not say"):
        data = Sequences(encoded, rolled=tmp_path)
    assert len(data.rolled) == len(data.walks) == 3
    batch = data.draw(checkpoint.step_rng(1, 1), 4, WINDOW)
    assert not torch.equal(batch.past, batch.x0)
    true, own = (
        [torch.from_numpy(walk.astype(np.float32)).transpose(0, 1) for walk in part]  # 16 L h w
        for part in ([w.latents for w in data.walks], [own for _, own in data.rolled])
    )
    for part, walks in ((batch.x0, true), (batch.past, own)):
        stretches = [walk[:, first : first + WINDOW] for first in (0, 1) for walk in walks]
        for sequence in part:
            assert any(torch.equal(sequence, stretch) for stretch in stretches)
    monkeypatch.setattr(sequences, "ROLLED_LIMIT", 0.0)
    lost = data.draw(checkpoint.step_rng(1, 1), 4, WINDOW)
    assert torch.equal(lost.past, lost.x0)


def test_a_walk_that_changes_its_world_changes_its_words(encoded: Path) -> None:
    data = Sequences(encoded)
    stays, changes = np.zeros(WINDOW, int), np.array([0] * 5 + [6] * (WINDOW - 5))
    words = [set(" ".join(w for part in data.worlds[i].words.values() for w in part).split())
             for i in (0, 6)]  # fmt: skip
    rng, blank, moved = np.random.default_rng(0), 0, 0
    for _ in range(200):
        (first, second), since = data._captions(changes, rng)
        assert since == 5
        assert set(first.replace(",", "").split()) <= words[0] | {"with", "of", "on"}
        assert set(second.replace(",", "").split()) <= words[1] | {"with", "of", "on"}
        (first, second), since = data._captions(stays, rng)
        blank += first == ""
        moved += since < WINDOW
        assert 1 <= since <= WINDOW
        assert set(second.replace(",", "").split()) <= words[0] | {"with", "of", "on"}
    assert 10 < blank < 60, "some sequences have no words"
    assert 15 < moved < 75, "in some only the wording changes"


@torch.no_grad()
def test_teacher_forcing_equals_streaming(encoded: Path) -> None:
    model = world_model(1, noise=0.05)
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
    frames: np.ndarray, encoded: Path, tmp_path: Path
) -> None:
    train(vae_trainer(frames, tmp_path / "whole.pt", steps=2), frames[:1, :5])
    train(vae_trainer(frames, tmp_path / "parts.pt", steps=1), frames[:1, :5])
    train(vae_trainer(frames, tmp_path / "parts.pt", steps=2), frames[:1, :5])
    whole, parts = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert_same(whole["model"], parts["model"])
    assert_same(whole["ema"], parts["ema"])

    run = dit_trainer(tmp_path / "dit.pt")
    run.train_step(Sequences(encoded), 0)
    metadata = {"preset": "pocket", "config": config_json(DIT, VAE, POCKET_TEXT)}
    write(tmp_path / "tiny.safetensors", collect(whole["ema"], run.ema), metadata)
    vae, model = load_pocket(tmp_path / "tiny.safetensors", None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, run.ema[name].bfloat16().float()), name
    assert vae.params == VAE
    assert_same(vae.state_dict(), {n: t.bfloat16().float() for n, t in whole["ema"].items()})

    from worldline.runtime.loader import load_components

    loaded = load_components(str(tmp_path / "tiny.safetensors"), device="cpu")
    assert loaded.dit.params == DIT
    for name, tensor in loaded.dit.state_dict().items():
        assert torch.equal(tensor, model.dit.state_dict()[name]), name


def packed(path: Path, words: tuple[str, ...]) -> WorldModel:
    """A weights file of full size with another word list, and the model in it."""
    torch.manual_seed(5)
    text = msgspec.structs.replace(POCKET_TEXT, words=words)
    vae, model = vae_recipe.PocketVAE(vae_recipe.POCKET_VAE), WorldModel(text=text)
    metadata = {"config": config_json(model.dit.params, vae.params, text)}
    write(path, collect(vae.state_dict(), model.state_dict()), metadata)
    return load_pocket(path, None)[1]


def test_beginning_from_weights_keeps_known_words_and_gives_new_ones_fresh_rows(
    tmp_path: Path,
) -> None:
    known = ("zebra", *POCKET_TEXT.words[40:10:-1])  # another order, and a word that is gone
    old = packed(tmp_path / "old.safetensors", known)
    new = begin_from(tmp_path / "old.safetensors")
    assert new.text.params == POCKET_TEXT
    for row, word in enumerate(POCKET_TEXT.words):
        same = [torch.equal(new.text.table[row], entry) for entry in old.text.table]
        assert [i for i, s in enumerate(same) if s] == [
            i for i, kept in enumerate(known) if kept == word
        ], word
    assert torch.equal(new.text.table[-1], old.text.table[-1]), "the row of no known word"
    assert_same(old.dit.state_dict(), new.dit.state_dict())
    prompts = ["golden lanterns at dusk", "zebra"]
    known_words, unknown = new.text.encode(prompts), old.text.encode(prompts)
    assert torch.equal(known_words[0], unknown[0]), "a known prompt means what it meant"
    assert not torch.equal(known_words[1], unknown[1])


def test_the_autoencoder_begins_from_given_weights(frames: np.ndarray, tmp_path: Path) -> None:
    train(vae_trainer(frames, tmp_path / "old.pt", steps=1), frames[:1, :5])
    init = checkpoint.load(tmp_path / "old.pt")["ema"]
    settings = vae_recipe.Settings(steps=1, size=2)
    run = vae_recipe.Trainer(VAE, frames, tmp_path / "new.pt", settings=settings, init=init)
    assert_same(run.vae.state_dict(), init)
    assert_same(run.ema, init)
    assert run.step == 0
    run.train_step()
    run.save()
    again = vae_recipe.Trainer(VAE, frames, tmp_path / "new.pt", settings=settings, init=init)
    assert again.step == 1, "a checkpoint goes before other weights"
    assert_same(again.vae.state_dict(), run.vae.state_dict())
