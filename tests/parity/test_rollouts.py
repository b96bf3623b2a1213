"""The checker, and so our network, ring and engine, against a second plain implementation.

`recorder` shares no code with the package. Correct recordings of any window, sink, chunk, size,
control and form must pass, and one wrong value anywhere must be found.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parity.record_film import Film, record_film
from tests.parity.recorder import Plan, record_causal
from worldline.bench.parity import main, missed, run
from worldline.bench.parity_networks import load_vae
from worldline.models.presets import WAN_MEAN, WAN_STD
from worldline.models.wan.vae import WanVAE

DATA = Path(__file__).resolve().parent / "data"
VAE = "vae_weights.safetensors"
PLANS = {
    "clones": Plan(chunks=(2, 2, 2, 2, 2), window=5, sink=1),
    "views": Plan(chunks=(2, 2, 2, 2), window=5, sink=1, views=True),
    "partial": Plan(chunks=(3, 3, 3, 2), window=7, sink=2, rows=2, columns=4),
    "partial_views": Plan(chunks=(4, 4, 1), window=6, sink=2, rows=2, columns=4, views=True),
    "tight": Plan(chunks=(3, 3, 3), window=5, sink=2, rows=2),
    "single": Plan(chunks=(1,) * 6, window=3, sink=1),
    "act": Plan(chunks=(2, 2, 2), window=4, channels=7, rows=6, columns=4),
    "nocam": Plan(chunks=(2, 2, 2), use_cam=False),
    "limit": Plan(chunks=(2, 2, 2, 2), window=6, sink=2, limit=5),
    "limit_below_chunk": Plan(chunks=(2, 2, 2), window=6, sink=2, limit=1),
    "growing_limit": Plan(chunks=(2, 2, 2), limit=3),
    "growing_sink": Plan(chunks=(2, 2, 2), sink=2),
    "last_layer": Plan(chunks=(2, 2, 2), window=4, layers=(1,)),
    "no_cache": Plan(chunks=(2, 2, 2), window=4, layers=()),
    "steps": Plan(chunks=(2, 2), window=4, index=(0, 100, 300), shift=3.5),
    "one_step": Plan(chunks=(2, 2), window=4, index=(0,), shift=5.0),
}


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata=meta)


def assert_passes(folder: Path, rows: int) -> None:
    results = run(folder)
    assert [r for r in results if r.status != "pass"] == []
    assert len(results) == rows


@pytest.mark.parametrize("name", PLANS)
def test_a_causal_run_of_another_form_passes(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    record_causal(tmp_path, name, plan)
    assert_passes(tmp_path, 1 + len(plan.chunks) + bool(plan.layers))


def test_the_cache_may_be_recorded_for_some_chunks_only(tmp_path: Path) -> None:
    path = record_causal(tmp_path, "some", PLANS["clones"])

    def forget(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if n.startswith("chunk4.kv.")]:
            del tensors[name]

    change(path, forget)
    assert_passes(tmp_path, 7)


def test_window_and_sink_may_stand_with_the_case(tmp_path: Path) -> None:
    path = record_causal(tmp_path, "moved", PLANS["tight"])
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    config, case = json.loads(meta["config"]), json.loads(meta["case"])
    for key in ("local_attn_size", "sink_size"):
        case[key] = config.pop(key)
    del case["use_cam"]
    meta |= {"config": json.dumps(config), "case": json.dumps(case)}
    save_file(load_file(path), path, metadata=meta)
    assert_passes(tmp_path, 5)


def off(tensor: Tensor) -> None:
    tensor.view(-1)[tensor.numel() // 3] += 1e-3


@pytest.mark.parametrize("form", ["clones", "views"])
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("chunk2.step1.flow", "chunk 2"),
        ("chunk3.step3.x0", "chunk 3"),
        ("chunk1.step0.renoised", "chunk 1"),
        ("chunk0.context_pass.out", "chunk 0"),
        ("chunk1.kv.layer0.k", "cache"),
        ("chunk3.kv.layer1.v", "cache"),
        ("cross_kv.layer0.v", "schedule and text"),
    ],
)
def test_one_wrong_value_of_a_causal_run_is_found(
    form: str, name: str, row: str, tmp_path: Path
) -> None:
    path = record_causal(tmp_path, form, PLANS[form])
    change(path, lambda tensors: off(tensors[name]))
    assert row in {r.case for r in run(tmp_path) if r.status == "fail"}
    assert main(tmp_path, json=False) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 6},
        {"sink": 2},
        {"limit": 3},
        {"shift": 5.0},
        {"index": (0, 179, 358, 679)},
        {"use_cam": False},
    ],
)
def test_a_run_under_other_settings_is_found(wrong: dict[str, object], tmp_path: Path) -> None:
    """The metadata of one run on the tensors of another."""
    path = record_causal(tmp_path, "run", PLANS["clones"])
    tensors = load_file(path)
    other = record_causal(tmp_path, "run", Plan(**{**vars(PLANS["clones"]), **wrong}))  # pyright: ignore
    with safe_open(other, framework="pt") as file:
        meta = file.metadata()
    save_file(tensors, path, metadata=meta)
    assert missed(run(tmp_path))


def test_a_tensor_that_is_gone_is_an_error_of_its_chunk(tmp_path: Path) -> None:
    path = record_causal(tmp_path, "gone", PLANS["single"])
    change(path, lambda tensors: tensors.pop("chunk3.step2.flow"))
    status = {r.case: r.status for r in run(tmp_path)}
    assert status["chunk 3"] == "error"
    assert status["chunk 2"] == "pass"
    assert main(tmp_path, json=False) == 1


FILMS = {
    "v1_short_of_4n": Film(frame_num=23, chunk=2, window=5, sink=2),
    "v2_few_poses": Film(frame_num=81, chunk=4, window=7, poses=20, index=(0, 250, 500, 750)),
    "v1_single": Film(frame_num=13, chunk=1, window=3, sink=1, picture=(64, 40)),
    "v1_string": Film(frame_num=17, chunk=2, window=4, action="w-10,jd-5"),
    "v1_act": Film(frame_num=18, chunk=2, keys=True, picture=(20, 61)),
}


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return load_vae(DATA / VAE, WAN_MEAN, WAN_STD)


@pytest.mark.parametrize("name", FILMS)
def test_a_whole_run_of_another_form_passes(name: str, vae: WanVAE, tmp_path: Path) -> None:
    shutil.copy(DATA / VAE, tmp_path)
    record_film(tmp_path, name, FILMS[name], vae)
    assert_passes(tmp_path, 2)


def test_weights_may_be_named_in_words(vae: WanVAE, tmp_path: Path) -> None:
    shutil.copy(DATA / VAE, tmp_path)
    film = Film(frame_num=9, chunk=1, window=2, picture=(16, 16))
    path = record_film(tmp_path, "v1_said", film, vae, said=True)
    assert_passes(tmp_path, 2)
    change(path, lambda tensors: off(tensors["latents"]))
    assert {r.case for r in run(tmp_path) if r.status == "fail"} == {"condition and latents"}
    change(path, lambda tensors: tensors["video"].add_(torch.full((1,), 2e-3)))
    assert {r.case for r in run(tmp_path) if r.status == "fail"} >= {"video"}
