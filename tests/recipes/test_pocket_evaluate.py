"""The whole judgement of a tiny random model, and what it promises about files and walks."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import evaluate, judge_memory, judge_subject
from recipes.pocket.encode import encode_walk
from recipes.pocket.export import collect, config_json, write
from recipes.pocket.judge_palette import clear_walk, palettes
from recipes.pocket.judge_prompt import OBEY
from recipes.pocket.judge_report import MISS, PASS, Finding
from recipes.pocket.judge_subject import (
    WARM,
    Begin,
    Subject,
    decode,
    decode_at,
    make_subject,
    walk_on,
)
from recipes.pocket.judge_switch import LAST, plan_switches, switch_figures
from recipes.pocket.judge_trial import QUICK, Trial
from recipes.pocket.judge_unseen import foreign_worlds
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import clearance, scenes
from recipes.pocket.sequences import cameras, condition
from recipes.pocket.streaming import generate
from recipes.pocket.walks import METRES, frame_poses, relative_poses
from recipes.pocket.world_model import POCKET_DIT, WINDOW, WorldModel
from worldline.models.pocket.params import POCKET_TEXT, PocketVAEParams
from worldline.models.pocket.vae import PocketVAE

VAE = PocketVAEParams(latent_channels=16, encoder=(8, 8), decoder=(8, 8, 8), blocks=1)
DIT = msgspec.structs.replace(POCKET_DIT, dim=24, ffn_dim=32, num_heads=2, num_layers=2)
ONE_STEP = (1.0, 0.0)
TINY = QUICK._replace(walks=2, latents=3, minute_walks=2, endurance=(8,), places=2, views=1,
                      starts=2, unseen_latents=3)  # fmt: skip


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Random networks: fast, and wrong about everything."""
    torch.manual_seed(0)
    vae, model = PocketVAE(VAE).eval(), WorldModel(DIT).eval()
    with torch.no_grad():
        vae.pca.normal_(std=0.05)
        vae.pca_inverse.normal_(std=0.05)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return make_subject(vae, model, times=ONE_STEP)


@pytest.fixture
def trial(subject: Subject, tmp_path: Path) -> Trial:
    return Trial(subject, TINY, tmp_path)


def test_walking_here_is_walking_there(trial: Trial) -> None:
    subject, length = trial.subject, WINDOW + 2
    walks = [trial.walk(i, length) for i in range(2)]
    begin = trial.start(walks)
    later = {3: subject.model.text.rows(["snow", "red columns"])}
    x0 = torch.zeros(2, 16, length, 12, 20)
    assert begin.picture is not None
    x0[:, :, 0] = begin.picture
    y = condition(x0, torch.ones(2, dtype=torch.bool), subject.grey.numpy())
    camera = cameras(np.stack([relative_poses(walk) for walk in walks]), x0)
    there = generate(subject.model, begin.rows, y, camera, times=ONE_STEP, later=later)
    assert torch.equal(walk_on(subject, begin, later=later), there)
    forced = generate(subject.model, begin.rows, y, camera, times=ONE_STEP, truth=x0)
    assert torch.equal(walk_on(subject, begin, truth=x0), forced)
    assert not torch.equal(there, forced)


def test_walks_do_not_depend_on_who_walks_beside_them_but_for_noise(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of one see the same conditions as one batch of two; the noise is by batch."""
    begin = trial.start([trial.walk(i, 3) for i in range(2)])
    together = walk_on(trial.subject, begin)
    monkeypatch.setattr(judge_subject, "BATCH", 1)
    told: list[tuple[int, int]] = []
    apart = walk_on(trial.subject, begin, told=lambda done, total: told.append((done, total)))
    assert apart.shape == together.shape
    assert told == [(i, 6) for i in range(1, 7)]
    alone = Begin(begin.rows[1:], None, begin.rel[1:])
    assert begin.picture is not None
    alone = alone._replace(picture=begin.picture[1:])
    torch.testing.assert_close(walk_on(trial.subject, alone, seed=1), apart[1:])


def test_a_look_needs_only_the_latents_before_it(trial: Trial) -> None:
    latents = torch.randn(2, 16, 9, 12, 20, generator=torch.Generator().manual_seed(1))
    whole = decode(trial.subject, latents)
    assert whole.shape == (2, 33, 96, 160, 3)
    looks = decode_at(trial.subject, latents, [0, WARM, 8])
    assert np.array_equal(looks[:, 0], whole[:, 0])
    assert np.array_equal(looks[:, 1], whole[:, 4 * WARM])
    assert looks.shape == (2, 3, 96, 160, 3)


def test_true_pictures_are_those_of_the_walk(trial: Trial) -> None:
    walk = trial.walk(1, 4)
    renderer = Renderer(scenes()[walk.scene])
    frames = np.stack([renderer.frame(pose) for pose in frame_poses(walk)])
    assert np.array_equal(trial.true_at(walk, [0, 2]), frames[[0, 8]])
    assert np.array_equal(trial.true_end(walk), frames[-4:])
    judged = trial.with_truth([walk])
    assert np.array_equal(judged.frames[0], frames)
    latents = encode_walk(trial.subject.vae, frames)[0].astype(np.float32)
    assert np.array_equal(judged.x0[0].transpose(0, 1).numpy(), latents)
    begin = trial.start([walk])
    assert begin.picture is not None and judged.begin.picture is not None
    torch.testing.assert_close(begin.picture, judged.begin.picture, atol=0.02, rtol=0.02)


def test_weights_that_know_fewer_words_are_judged_in_fewer_worlds(subject: Subject) -> None:
    assert subject.worlds == tuple(range(len(scenes())))
    prompts = " ".join(view.prompt for scene in scenes()[:3] for view in scene.starts)
    heard = set(re.findall("[a-z]+", prompts))
    fewer = tuple(word for word in POCKET_TEXT.words if word in heard)
    text = msgspec.structs.replace(POCKET_TEXT, words=fewer)
    old = make_subject(subject.vae, WorldModel(DIT, text), times=ONE_STEP)
    assert old.worlds == (0, 1, 2)
    names = [world.scene.name for world in foreign_worlds(Trial(old, TINY, Path()))]
    assert set(names) > {scenes()[i].name for i in range(3, 8)}


def test_worlds_never_seen_are_none_of_the_known(trial: Trial) -> None:
    worlds = foreign_worlds(trial)
    assert len(worlds) == 5
    for world in worlds:
        for known in scenes():
            assert world.scene.cells != known.cells
        assert world.scene.layout == scenes()[world.base].layout


def test_walks_for_palettes_keep_away_in_every_world(trial: Trial) -> None:
    walk = clear_walk(trial, 2, 7, 9)
    for x, z in walk.c2w[:, [0, 2], 3] * METRES:
        assert min(clearance(scene, x, z) for scene in scenes()) > 1.0
    own = trial.true_at(walk, [8])
    assert palettes(trial, own, [walk], 8).tolist() == [2]
    other = trial.true_at(walk, [8], 5)
    assert palettes(trial, other, [walk], 8).tolist() == [5]


def test_switches_that_are_obeyed_and_that_are_not(trial: Trial) -> None:
    switches = plan_switches(trial)
    assert [(s.old, s.new) for s in switches] == [(i, (i + 1) % 8) for i in range(8)]
    full = plan_switches(Trial(trial.subject, TINY._replace(pairs=1), trial.folder))
    assert len({(s.old, s.new) for s in full}) == 56
    for name, verdict in (("new", PASS), ("old", MISS)):
        made = np.concatenate([trial.true_at(s.walk, [LAST], getattr(s, name)) for s in switches])
        seen = palettes(trial, made, [s.walk for s in switches], LAST)
        figures = {f.name: f for f in switch_figures(trial, switches, made, seen)}
        assert figures["palette after a switch"].verdict == verdict
        follows = figures["the layout follows, where it differs"].value
        assert follows is not None and (follows > 90 if name == "new" else follows < 10)
    assert OBEY.met(90) and not OBEY.met(89)


def test_the_whole_judgement(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_memory, "QUARTER", 2)
    monkeypatch.setattr(judge_memory, "ROUND", 6)
    seen: list[str] = []
    groups = list(evaluate.GROUPS)
    findings = evaluate.judge(trial, groups, {}, on_finding=lambda f: seen.append(f.group))
    assert [f.group for f in findings] == seen == groups
    page = (trial.folder / "index.html").read_text("utf-8")
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    sheets = [sheet for finding in findings for sheet in finding.sheets]
    assert len(list(root.iter("img"))) == len(sheets) > 7
    assert all((trial.folder / sheet.file).exists() for sheet in sheets)
    figures = json.loads((trial.folder / "figures.json").read_text())
    assert figures["picture"]["reconstruction, mean picture"]["verdict"] == MISS
    assert figures["camera"]["commands told apart after 1.25 s"]["value"] < 60
    judged = [f for finding in findings for f in finding.figures if f.goal is not None]
    assert len(judged) == 23 - 3  # endurance has one length here, the target two
    assert evaluate.table(findings).row_count == sum(len(f.figures) for f in findings)


def test_a_group_that_fails_leaves_the_others(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(trial: Trial) -> Finding:
        return Finding(group="camera", title="Camera", text="", figures=[])

    def broken(trial: Trial) -> Finding:
        raise MemoryError("killed")

    monkeypatch.setattr(evaluate, "GROUPS", {"camera": plain, "walk": broken})
    with pytest.raises(MemoryError):
        evaluate.judge(trial, ["camera", "walk"], {})
    assert (trial.folder / "camera.json").exists()
    assert "Camera" in (trial.folder / "index.html").read_text("utf-8")


def test_the_command_line(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = {name: t.clone() for name, t in subject.vae.state_dict().items()}
    metadata = {"preset": "pocket", "config": config_json(DIT, VAE, POCKET_TEXT), "dit_steps": "7"}
    write(tmp_path / "tiny.safetensors", collect(vae, subject.model.state_dict()), metadata)
    out = tmp_path / "out"
    weights = ["--out", str(out), "--weights", str(tmp_path / "tiny.safetensors"), "--quick"]
    evaluate.main([*weights, "--only", "walk", "--walks", "1", "--latents", "2", "--steps", "1"])
    assert "first second" in capsys.readouterr().out
    page = (out / "index.html").read_text("utf-8")
    assert "transformer 7" in page and str(tmp_path) not in page
    args = evaluate.parse([*weights, "--endurance", "300", "--walks", "3"])
    plan = evaluate.plan_of(args)
    assert plan.endurance == (240, 300) and plan.walks == 3
    assert evaluate.plan_of(evaluate.parse([*weights, "--endurance", "0"])).endurance == ()
    assert evaluate.plan_of(evaluate.parse(["--out", "x"])).walks == 64
