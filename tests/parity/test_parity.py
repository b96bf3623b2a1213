"""Our code against the recorded runs, and the checker against broken recordings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldline.bench.parity import main, missed, print_table, run
from worldline.bench.parity_case import CaseResult, compare
from worldline.core.errors import ConfigError

HERE = Path(__file__).resolve().parent / "data"
WHOLE = Path(__file__).resolve().parents[3] / "shared" / "golden"
GROUPS = ["actions", "camera", "dit_base", "dit_causal", "e2e_fast", "scheduler", "umt5", "vae"]
SIZE_LIMIT = 15_000_000

Recordings = Callable[..., Path]


def report(results: list[CaseResult]) -> str:
    return "\n".join(f"{r.file} {r.case} {r.status} {r.detail}" for r in results if missed([r]))


@pytest.fixture
def copied(tmp_path: Path) -> Recordings:
    """Make a directory with links to the named recordings; a link can be replaced by a file."""

    def copy(*names: str) -> Path:
        for name in names:
            (tmp_path / name).symlink_to(HERE / name)
        return tmp_path

    return copy


def rewrite(
    path: Path, change: Callable[[dict[str, Tensor]], None], *, case: str | None = None
) -> None:
    """Replace a linked recording by a changed copy, if asked with one of its cases only."""
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    if case is not None:
        meta["cases"] = json.dumps({case: json.loads(meta["cases"])[case]})
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata=meta)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_recordings_of_this_repository() -> None:
    results = run(HERE)
    assert not missed(results), report(results)
    passed = {r.file for r in results if r.status == "pass"}
    assert [g for g in GROUPS if not any(name.startswith(g) for name in passed)] == []
    assert [r for r in results if r.status == "not yet"] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole set is not beside this repository")
def test_the_whole_set() -> None:
    results = run(WHOLE)
    assert not missed(results), report(results)
    assert [r for r in results if r.status == "not yet"] == []
    passed = {r.file for r in results if r.status == "pass"}
    assert {"e2e_base.safetensors", "e2e_pretrain_v2.safetensors"} <= passed


def test_the_recordings_stay_small_and_free() -> None:
    files = list(HERE.iterdir())
    assert sum(path.stat().st_size for path in files) <= SIZE_LIMIT
    assert not [path.name for path in files if "_v2" in path.name]


SIBLINGS = {
    "camera.safetensors": [],
    "actions.safetensors": [],
    "scheduler.safetensors": ["scheduler_pseudo_noise.safetensors"],
    "umt5.safetensors": ["umt5_weights.safetensors"],
    "vae.safetensors": ["vae_weights.safetensors"],
}
PLANTED = [
    ("actions.safetensors", "readme.c2w"),
    ("actions.safetensors", "diag.wasd"),
    ("actions.safetensors", "example00.ijkl"),
    ("camera.safetensors", "walk.interp"),
    ("camera.safetensors", "orbit.rel_first_frame"),
    ("camera.safetensors", "forward.rel_framewise"),
    ("camera.safetensors", "walk.rel_framewise_unnormalised"),
    ("camera.safetensors", "still.Ks"),
    ("camera.safetensors", "rotate_only.plucker_folded"),
    ("camera.safetensors", "act_example05.plucker_folded"),
    ("camera.safetensors", "example01.plucker_sample_value"),
    ("camera.safetensors", "example01.plucker_channel_mean"),
    ("scheduler.safetensors", "dmd.shift3.sigmas"),
    ("scheduler.safetensors", "dmd.shift10.v1.sigma_x0"),
    ("scheduler.safetensors", "dmd.shift10.v2.sigma_renoise"),
    ("scheduler.safetensors", "dmd.shift5.v2.step3.x0"),
    ("scheduler.safetensors", "dmd.shift5.v1.step2.renoised"),
    ("scheduler.safetensors", "warp.shift10.1000_821_642_321.timesteps"),
    ("scheduler.safetensors", "warp.shift3.addnoise.out"),
    ("scheduler.safetensors", "euler.shift5.n40.sigmas"),
    ("scheduler.safetensors", "euler.shift10.n20.trajectory"),
    ("scheduler.safetensors", "unipc.shift5.n40.trajectory"),
    ("scheduler.safetensors", "unipc.shift10.n20.sigmas"),
    ("scheduler.safetensors", "dpmpp.shift3.n8.trajectory"),
    ("umt5.safetensors", "out_official"),
    ("umt5.safetensors", "out_no_mask"),
    ("umt5.safetensors", "dit_context_zero_padded"),
    ("vae.safetensors", "enc.mu_normalised"),
    ("vae.safetensors", "cond.latent_of_image_then_zeros"),
    ("vae.safetensors", "dec.video_unclamped"),
    ("vae.safetensors", "stream3.chunk1.out"),
    ("vae.safetensors", "stream_1_2_3.chunk0.feat05"),
]


@pytest.mark.parametrize(("file", "name"), PLANTED)
def test_one_value_off_by_a_thousandth_is_found(file: str, name: str, copied: Recordings) -> None:
    folder = copied(file, *SIBLINGS[file])

    def plant(tensors: dict[str, Tensor]) -> None:
        flat = tensors[name].flatten()
        flat[len(flat) // 2] += 1e-3

    # One camera case alone: the full-size ones take a second each.
    only = name.split(".")[0] if file.startswith("camera") else None
    rewrite(folder / file, plant, case=only)
    results = run(folder)
    wrong = [result for result in results if result.status == "fail"]
    assert len(wrong) == 1, report(results)
    assert wrong[0].file == file
    assert wrong[0].max_abs == pytest.approx(1e-3, rel=0.2)
    assert wrong[0].detail


def test_a_weight_off_by_a_tenth_is_found(copied: Recordings) -> None:
    folder = copied("umt5.safetensors", "umt5_weights.safetensors")

    def plant(tensors: dict[str, Tensor]) -> None:
        tensors["blocks.1.attn.q.weight"][3, 3] += 0.1

    rewrite(folder / "umt5_weights.safetensors", plant)
    assert {r.status for r in run(folder) if r.case == "states"} == {"fail"}


def test_a_missing_tensor_and_a_nan_are_no_pass(copied: Recordings) -> None:
    folder = copied("actions.safetensors")

    def plant(tensors: dict[str, Tensor]) -> None:
        del tensors["diag.wasd"]
        tensors["readme.c2w"][5, 0, 3] = float("nan")
        tensors["spaces.c2w"] = tensors["spaces.c2w"][:-1].clone()

    rewrite(folder / "actions.safetensors", plant)
    status = {r.case: r.status for r in run(folder)}
    assert status["diag"] == "error"
    assert status["readme"] == status["spaces"] == "fail"
    assert status["pitch_clamp"] == "pass"


def test_a_tensor_that_nothing_reads_is_listed(copied: Recordings) -> None:
    folder = copied("actions.safetensors")
    rewrite(folder / "actions.safetensors", lambda tensors: tensors.update(extra=torch.ones(1)))
    (row,) = [r for r in run(folder) if r.status == "not yet"]
    assert row.detail == "extra"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("something.safetensors", b""),
        ("actions.safetensors", b"\x00" * 40),
        ("actions.safetensors", b""),
        ("vae_weights.safetensors", b"junk"),
        ("e2e_base.safetensors", b"junk"),
        ("e2e_pretrain.safetensors", b"junk"),
        ("scheduler_dmd_table.json", b"{"),
        ("scheduler_dmd_table.json", b"[]"),
        ("vae_weights.keys.json", b"{}"),
        ("notes.bin", b"1"),
    ],
)
def test_files_that_cannot_be_used_are_errors(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    results = run(tmp_path)
    assert [(r.file, r.status) for r in results] == [(name, "error")]
    assert results[0].detail


def test_a_truncated_recording_is_an_error(tmp_path: Path) -> None:
    whole = (HERE / "actions.safetensors").read_bytes()
    (tmp_path / "actions.safetensors").write_bytes(whole[: len(whole) // 2])
    assert [r.status for r in run(tmp_path)] == ["error"]


def test_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "actions.safetensors").symlink_to(tmp_path / "gone")
    assert [r.status for r in run(tmp_path)] == ["error"]


def test_weights_that_are_not_there_are_an_error(copied: Recordings) -> None:
    results = run(copied("umt5.safetensors"))
    assert [r.status for r in results] == ["error"]
    assert "umt5_weights" in results[0].detail


def test_an_empty_directory_is_a_miss_and_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing else")
    assert missed(run(tmp_path))
    with pytest.raises(ConfigError):
        run(tmp_path / "absent")


def test_guided_runs_without_what_they_were_made_with_are_errors(tmp_path: Path) -> None:
    for name in ("e2e_base.safetensors", "e2e_pretrain_v9.safetensors"):
        save_file({"video": torch.zeros(1)}, tmp_path / name)
    assert [r.status for r in run(tmp_path)] == ["error", "error"]
    assert main(tmp_path, json=True) == 1


def test_json_and_exit_code(copied: Recordings, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("actions.safetensors")
    assert main(folder, json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    assert printed["counts"] == {"pass": 6}
    assert {case["file"] for case in printed["cases"]} == {"actions.safetensors"}
    (folder / "odd.safetensors").write_bytes(b"")
    assert main(folder, json=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_pipe_gets_one_whole_line_per_case(
    copied: Recordings, capsys: pytest.CaptureFixture[str]
) -> None:
    main(copied("actions.safetensors"), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("actions.safetensors ")]) == 6


def test_the_table_shows_brackets_and_every_row(tmp_path: Path) -> None:
    rows = [
        CaseResult(
            file="a", case="b", max_abs=0.25, tolerance=1e-4, status="fail", detail="[2, 3]"
        ),
        CaseResult(file="c", case="d", max_abs=None, tolerance=None, status="not yet"),
    ]
    with (tmp_path / "out.txt").open("w") as file:
        print_table(rows, Console(file=file, width=100))
    text = (tmp_path / "out.txt").read_text()
    assert "2.50e-01" in text
    assert "[2, 3]" in text
    assert "1 fail, 1 not yet" in text


def test_comparison_is_strict_about_shape_and_nan() -> None:
    assert compare("x", [1.0, 2.0], torch.tensor([1.0, 2.00005])).passed
    assert not compare("x", [1.0, 2.0], torch.tensor([1.0, 2.001])).passed
    assert not compare("x", [1.0], torch.tensor(1.0)).passed
    assert not compare("x", [np.nan], np.array([np.nan])).passed
    assert not compare("x", [np.inf], np.array([np.inf])).passed
    assert not compare("x", [], np.zeros(0)).passed
