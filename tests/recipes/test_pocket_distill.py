"""Distillation: the student learns the guided teacher on its own steps; nobody else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import checkpoint, distill
from recipes.pocket.data import write_atomically
from recipes.pocket.distill import Distiller, Settings, Teacher, prepare, read_teacher
from recipes.pocket.export import collect
from recipes.pocket.rollout import roll_shard
from recipes.pocket.sequences import Sequences, read_grey
from recipes.pocket.stage import train
from recipes.pocket.streaming import SHIPPED, Stream
from recipes.pocket.train_dit import Trainer
from recipes.pocket.world_model import POCKET_DIT, WINDOW, WorldModel
from tests.recipes.small import DIT, SETTINGS, dit_trainer, world_model
from worldline.core.errors import CheckpointError, ConfigError, InputError

SMALL = Settings(steps=4, decay=2, size=1, every=2, guidance=2.0)


def teacher() -> Teacher:
    """Two models that differ, as one training's early and late weights do."""
    late, early = world_model(1, noise=0.05), world_model(1, noise=0.05)
    with torch.no_grad():
        for parameter in early.parameters():
            parameter.mul_(0.9)
    return Teacher(late.requires_grad_(False), early.requires_grad_(False), step=6000)


@pytest.fixture(scope="module")
def data(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequences:
    """Sequences of which some have the teacher's own past."""
    folder, (grey, encoder) = tmp_path_factory.mktemp("rolled"), read_grey(encoded)
    rolled = roll_shard(teacher().model, encoded / "walks-0000.npz", grey)
    name = np.array(encoder)
    write_atomically(folder / "walks-0000.npz", rolled=rolled, encoder_print=name)
    return Sequences(encoded, rolled=folder)


def distiller(path: Path, data: Sequences, settings: Settings = SMALL) -> Distiller:
    run = Distiller(teacher(), settings, path)
    run.feed(data)
    return run


def test_a_resumed_run_equals_an_uninterrupted_one(data: Sequences, tmp_path: Path) -> None:
    val = data.draw(checkpoint.step_rng(1, 0), 1, WINDOW)
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for stop in stops:
            run = distiller(tmp_path / f"{name}.pt", data)
            run.settings = run.settings._replace(steps=stop, decay=0)
            train(run, val)
    whole, parts = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert (parts["distilled"], parts["step"], parts["guidance"]) == (4, 6000, 2.0)
    for kind in ("model", "ema"):
        for name, tensor in whole[kind].items():
            assert torch.equal(tensor, parts[kind][name]), name


def test_gradients_reach_all_of_the_student_and_nobody_else(
    data: Sequences, tmp_path: Path
) -> None:
    run = distiller(tmp_path / "dit.pt", data)
    models = run.student, run.teacher.model, run.teacher.early
    before = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
    for _ in range(5):
        run.train_step()
    student, *frozen = (
        {n for n, t in model.state_dict().items() if torch.equal(t, old[n])}
        for model, old in zip(models, before, strict=True)
    )
    assert student == set(), "parameters that no gradient reaches"
    assert frozen == [set(before[1]), set(before[2])]
    assert all(p.grad is None for model in models[1:] for p in model.parameters())


def test_the_student_comes_nearer_to_the_guided_teacher(
    data: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is learnt of the guidance at first, much of it after some steps on one batch."""
    settings = SMALL._replace(
        steps=16, decay=0, ema=0.2, times=(1.0, 0.625, 0.0), muon_lr=4e-3, adam_lr=4e-3
    )
    run = distiller(tmp_path / "dit.pt", data, settings)
    val = data.draw(checkpoint.step_rng(1, 0), 1, WINDOW)
    monkeypatch.setattr(data, "draw", lambda rng, size, length: val)
    assert learnt(run.judge(val)) == [0, 0]
    for _ in range(settings.steps):
        run.train_step()
    assert min(learnt(run.judge(val))) > 25


def learnt(text: str) -> list[int]:
    """The percentages of a judgement."""
    return [int(share.rstrip("%")) for share in text.split(":")[1].split()]


def test_the_target_is_the_teacher_away_from_the_early_model(
    data: Sequences, tmp_path: Path
) -> None:
    run = distiller(tmp_path / "dit.pt", data)
    batch = data.draw(checkpoint.step_rng(1, 3), 2, WINDOW)
    given = prepare(run.student, batch, checkpoint.step_noise(1, 3))
    x, now = torch.randn(batch.x0.shape), torch.tensor(0.625)
    good, early = (distill.flow(m, given, x, now) for m in (run.teacher.model, run.teacher.early))
    torch.testing.assert_close(run.guided(given, x, now), good + (good - early))
    run.settings = run.settings._replace(guidance=1.0)
    torch.testing.assert_close(run.guided(given, x, now), good)


@torch.no_grad()
def test_the_student_walks_the_steps_of_the_product(data: Sequences, tmp_path: Path) -> None:
    """Four steps of the training pass stand where the stream's sampler stands after four."""
    run = distiller(tmp_path / "dit.pt", data)
    batch = data.draw(checkpoint.step_rng(1, 1), 1, WINDOW)
    given = prepare(run.student, batch, checkpoint.step_noise(1, 1))
    given = given._replace(clean=batch.past, told=torch.zeros_like(given.told))
    prompts = given.extra["prompts"]
    given.extra["prompts"] = prompts._replace(since=torch.full_like(prompts.since, WINDOW))
    x, now = run.walk(run.student, given, 4)
    assert now.item() == pytest.approx(SHIPPED[4])
    stream, made = Stream(run.student.eval(), prompts.rows), list[Tensor]()
    for i in range(WINDOW):
        part = slice(i, i + 1)
        inputs = batch.y[:, :, part], batch.camera[:, :, part]
        made.append(stream.step(*inputs, given.noise[:, :, part], times=SHIPPED[:5]))
        stream.commit(batch.past[:, :, part], *inputs)
    torch.testing.assert_close(torch.cat(made, dim=2), x, atol=1e-4, rtol=1e-4)


def test_what_is_left_is_taken_by_packing_and_not_mistaken(data: Sequences, tmp_path: Path) -> None:
    run = distiller(tmp_path / "dit.pt", data)
    run.save()
    state = checkpoint.load(tmp_path / "dit.pt")
    packed = collect({}, state["ema"])
    assert set(packed) == set(WorldModel(DIT).state_dict())
    Trainer(WorldModel(DIT), SETTINGS, tmp_path / "dit.pt")  # and training may go on from it
    with pytest.raises(ConfigError, match=r"another guidance; expected 2\.0; got 1\.25"):
        distiller(tmp_path / "dit.pt", data, SMALL._replace(guidance=1.25))
    dit_trainer(tmp_path / "flow.pt").save()
    with pytest.raises(InputError, match=r"not of this stage.*got the dit\.pt of train_dit"):
        distiller(tmp_path / "flow.pt", data)
    run.teacher = run.teacher._replace(encoder="0123")
    with pytest.raises(CheckpointError, match="two autoencoders"):
        run.feed(data)


def test_teachers_are_two_states_of_one_training(tmp_path: Path) -> None:
    state = {"ema": WorldModel(POCKET_DIT).state_dict(), "encoder_print": "a"}
    paths = [tmp_path / "late.pt", tmp_path / "early.pt"]
    for path, step in zip(paths, (6000, 2000), strict=True):
        checkpoint.save(path, {**state, "step": step})
    found = read_teacher(*paths)
    assert (found.step, found.encoder) == (6000, "a")
    assert not any(p.requires_grad for p in [*found.model.parameters(), *found.early.parameters()])
    with pytest.raises(InputError, match=r"--early must be.*expected fewer than 2000 steps"):
        read_teacher(paths[1], paths[0])
    checkpoint.save(paths[1], {**state, "step": 2000, "encoder_print": "b"})
    with pytest.raises(CheckpointError, match="two autoencoders"):
        read_teacher(*paths)
