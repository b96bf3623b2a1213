"""Loading end to end: every layout to identical networks, and every way a file can be wrong."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from tests.checkpoints import (
    TINY_DIT,
    TINY_UMT5,
    TINY_VAE,
    WRITERS,
    Tiny,
    make_tiny,
    save,
    write_diffusers,
    write_json,
    write_original_v1,
    write_original_v2,
    write_root_shards,
    write_shards,
)
from worldline.core.errors import (
    CheckpointError,
    ConfigError,
    KeysError,
    LayoutError,
    UnsafeFileError,
)
from worldline.models.presets import V2_NOTICE
from worldline.models.wan.text import UMT5Text
from worldline.runtime.hub import locate
from worldline.runtime.loader import Components, load_components

CPU = "cpu"


class RunsCode:
    """Unpickling this would call `os.mkdir`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.path,))


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture
def root(tiny: Tiny, tmp_path: Path) -> Path:
    """Root shards: three transformer shards with an index, and the original parts."""
    return write_root_shards(tmp_path / "model", tiny)


def load(path: Path | str, **options: object) -> Components:
    return load_components(str(path), device=CPU, **options)  # type: ignore[arg-type]


def text_network(components: Components) -> torch.nn.Module:
    assert isinstance(components.text, UMT5Text)
    return components.text.encoder


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_loads_to_the_same_networks(name: str, tiny: Tiny, tmp_path: Path) -> None:
    components = load(WRITERS[name](tmp_path, tiny))
    assert components.layout == name
    preset = components.preset
    assert (preset.dit, preset.vae, preset.text) == (TINY_DIT, TINY_VAE, TINY_UMT5)
    pairs = (
        (components.dit, tiny.dits[0]),
        (components.vae, tiny.vae),
        (text_network(components), tiny.text),
    )
    for module, tensors in pairs:
        state = module.state_dict()
        assert state.keys() == tensors.keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in tensors.items())
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("name", WRITERS)
def test_text_states_from_a_real_tokenizer(name: str, tiny: Tiny, tmp_path: Path) -> None:
    text = load(WRITERS[name](tmp_path, tiny)).text
    states = text.encode(["A sandy court", "Red columns under snow, under snow"])
    assert states.shape == (2, text.text_len, text.text_dim) == (2, 512, 32)
    lengths = [int(row.abs().sum(-1).count_nonzero()) for row in states]
    assert lengths == [4, 8]  # words (the comma is one) and the end of text
    assert torch.equal(states[:1], text.encode(["a sandy  COURT"]))


def test_act_control_is_read_off_the_weights(tmp_path: Path) -> None:
    params = msgspec.structs.replace(TINY_DIT, control_dim=7)
    components = load(write_original_v1(tmp_path / "cam", make_tiny(params)))
    assert components.dit.params.control_dim == 7


def test_base_model_has_two_experts(tmp_path: Path) -> None:
    tiny = make_tiny(experts=2)
    components = load(write_original_v1(tmp_path, tiny))
    low = components.low_noise_dit
    assert low is not None and not components.preset.live
    name = "blocks.0.self_attn.q.weight"
    assert torch.equal(components.dit.state_dict()[name], tiny.dits[0][name])
    assert torch.equal(low.state_dict()[name], tiny.dits[1][name])


def test_dtypes(root: Path) -> None:
    half = load(root, dtype="bfloat16")
    state = half.dit.state_dict()
    assert state["blocks.0.self_attn.q.weight"].dtype == torch.bfloat16
    assert state["blocks.0.modulation"].dtype == torch.float32
    assert state["time_embedding.0.weight"].dtype == torch.float32
    assert {tensor.dtype for tensor in half.vae.state_dict().values()} == {torch.float32}
    full = load(root)
    assert {tensor.dtype for tensor in full.dit.state_dict().values()} == {torch.float32}
    with pytest.raises(ConfigError, match="unknown dtype"):
        load(root, dtype="float8")


def test_weights_do_not_live_in_the_files(root: Path, tiny: Tiny) -> None:
    components = load(root)
    for path in [*root.glob("*.safetensors"), *root.glob("*.pth")]:
        path.write_bytes(bytes(path.stat().st_size))
    for module, tensors in ((components.dit, tiny.dits[0]), (components.vae, tiny.vae)):
        state = module.state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in tensors.items())


def test_progress_counts_every_byte_once(root: Path, tiny: Tiny) -> None:
    reports: list[tuple[int, int, str]] = []
    load(root, progress=lambda done, total, label: reports.append((done, total, label)))
    parts = (*tiny.dits, tiny.vae, tiny.text)
    nbytes = sum(tensor.nbytes for part in parts for tensor in part.values())
    assert {total for _, total, _ in reports} == {nbytes}
    counts = [done for done, _, _ in reports]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == nbytes
    labels = dict.fromkeys(label for _, _, label in reports)
    assert list(labels) == ["transformer", "autoencoder", "text encoder"]


def test_all_key_faults_in_one_error(root: Path, tiny: Tiny) -> None:
    tensors = dict(tiny.dits[0])
    missing = [name for name in tensors if name.startswith("blocks.1.")]
    for name in missing:
        del tensors[name]
    tensors["blocks.1.norm3.bias"] = torch.zeros(256)
    tensors["img_emb.proj.weight"] = torch.zeros(2, 2)
    tensors["blocks.0.self_attn.k.weight"] = torch.zeros(256, 128)
    write_shards(root, tensors, stem="model")
    with pytest.raises(KeysError) as caught:
        load(root)
    text = str(caught.value)
    assert (
        "transformer: 34 missing: blocks.1.cam_injector_layer1.bias" in text
        and "and 14 more" in text
    )
    assert "1 unexpected: img_emb.proj.weight" in text
    assert "1 mis-shaped: blocks.0.self_attn.k.weight [256, 128] instead of [256, 256]" in text
    assert "layout assumed: root-shards" in text


def test_wrong_keys_of_the_vae_and_text_encoder(root: Path, tiny: Tiny) -> None:
    torch.save({**tiny.vae, "encoder.extra": torch.zeros(1)}, root / "Wan2.1_VAE.pth")
    torch.save(tiny.vae, root / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(KeysError) as caught:
        load(root)
    text = str(caught.value)
    assert "autoencoder: 1 unexpected: encoder.extra" in text
    assert "text encoder: 242 missing" in text and "text encoder: 194 unexpected" in text
    assert "transformer" not in text


@pytest.mark.parametrize(
    "name",
    [
        "patch_embedding.weight",
        "patch_embedding_wancamctrl.weight",
        "blocks.0.ffn.0.weight",
        "head.head.weight",
        "text_embedding.0.weight",
        "time_embedding.0.weight",
    ],
)
def test_a_missing_tensor_is_one_line_even_where_sizes_are_read(
    name: str, root: Path, tiny: Tiny
) -> None:
    write_shards(root, {n: t for n, t in tiny.dits[0].items() if n != name}, stem="model")
    with pytest.raises(KeysError) as caught:
        load(root)
    assert f"transformer: 1 missing: {name}" in str(caught.value)


def test_nothing_is_read_before_the_keys_are_compared(root: Path, tiny: Tiny) -> None:
    torch.save({**tiny.vae, "encoder.extra": torch.zeros(1)}, root / "Wan2.1_VAE.pth")
    reports: list[int] = []
    with pytest.raises(KeysError):
        load(root, progress=lambda done, total, label: reports.append(done))
    assert reports == []


def test_a_plain_wan_transformer_is_not_ours(root: Path, tiny: Tiny) -> None:
    plain = {name: t for name, t in tiny.dits[0].items() if "wancamctrl" not in name}
    write_shards(root, plain, stem="model")
    with pytest.raises(KeysError, match=r"2 missing: patch_embedding_wancamctrl\.bias, patch_emb"):
        load(root)


def test_absurd_names_and_shapes(root: Path, tiny: Tiny) -> None:
    odd = {
        "blocks.99999999999.x": torch.zeros(1),
        "blocks.900.x": torch.zeros(1),
        "blocks.no.x": torch.zeros(1),
        "blocks.": torch.zeros(1),
    }
    write_shards(root, {**tiny.dits[0], **odd}, stem="model")
    with pytest.raises(KeysError) as caught:
        load(root)
    assert all(name in str(caught.value) for name in odd)
    flat = {**tiny.dits[0], "patch_embedding.weight": torch.zeros(())}
    write_shards(root, flat, stem="model")
    with pytest.raises(KeysError, match=r"1 mis-shaped: patch_embedding.weight \[\] instead"):
        load(root)


@pytest.mark.parametrize(
    "config",
    [
        {"num_heads": "many"},
        {"num_heads": -2},
        {"num_heads": [2]},
        {"num_heads": 2, "text_len": "long"},
        {"num_heads": 2, "eps": [1]},
    ],
)
def test_a_config_with_unusable_numbers(root: Path, config: dict[str, object]) -> None:
    write_json(root / "config.json", config)
    with pytest.raises(CheckpointError, match="states unusable numbers"):
        load(root)


def test_heads_that_do_not_divide_the_width(root: Path) -> None:
    write_json(root / "config.json", {"num_heads": 3})
    with pytest.raises(ConfigError, match="does not split into heads"):
        load(root)


def test_parts_of_another_model(root: Path) -> None:
    other = make_tiny(msgspec.structs.replace(TINY_DIT, text_dim=64))
    write_shards(root, other.dits[0], stem="model")
    with pytest.raises(KeysError, match="text encoder belongs to another model"):
        load(root)


def test_heads_must_be_known(tmp_path: Path) -> None:
    narrow = make_tiny(msgspec.structs.replace(TINY_DIT, dim=96))
    root = write_root_shards(tmp_path, narrow)
    with pytest.raises(KeysError, match="number of attention heads is not stated"):
        load(root)
    write_json(root / "config.json", {"num_heads": 2})
    assert load(root).dit.params.num_heads == 2


def test_a_pickle_with_code_in_it_is_refused(root: Path, tiny: Tiny, tmp_path: Path) -> None:
    trace = tmp_path / "the code ran"
    torch.save({**tiny.vae, "x": RunsCode(trace)}, root / "Wan2.1_VAE.pth")
    with pytest.raises(UnsafeFileError, match=r"Wan2\.1_VAE\.pth holds more than tensors"):
        load(root)
    (root / "Wan2.1_VAE.pth").write_bytes(pickle.dumps(RunsCode(trace)))
    with pytest.raises(UnsafeFileError, match=r"Wan2\.1_VAE\.pth"):
        load(root)
    assert not trace.exists()


def test_a_pickle_from_before_the_zip_format(root: Path, tiny: Tiny) -> None:
    torch.save(tiny.vae, root / "Wan2.1_VAE.pth", _use_new_zipfile_serialization=False)
    state = load(root).vae.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tiny.vae.items())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>not found</html>"])
def test_a_broken_pickle_names_the_file(root: Path, content: bytes) -> None:
    (root / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"models_t5_umt5-xxl-enc-bf16\.pth") as caught:
        load(root)
    assert not isinstance(caught.value, UnsafeFileError)


def test_a_truncated_pickle_names_the_file(root: Path) -> None:
    path = root / "Wan2.1_VAE.pth"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth is truncated"):
        load(root)


def test_a_pickle_of_something_else(root: Path) -> None:
    torch.save([torch.zeros(1)], root / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match="state dict of tensors; got list"):
        load(root)


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        (["Wan2.1_VAE.pth"], "expected Wan2.1_VAE.pth in"),
        (["models_t5_umt5-xxl-enc-bf16.pth"], "expected models_t5_umt5-xxl-enc-bf16.pth in"),
        (["google"], "expected google/umt5-xxl/ in"),
        (
            ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google"],
            "no autoencoder, text encoder, tokenizer",
        ),
    ],
)
def test_missing_parts_are_named(root: Path, absent: list[str], expected: str) -> None:
    for name in absent:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError) as caught:
        load(root)
    assert expected in str(caught.value)


def test_diffusers_folder_without_its_tokenizer(tmp_path: Path, tiny: Tiny) -> None:
    write_diffusers(tmp_path, tiny)
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer/ in"):
        load(tmp_path)


def test_only_the_tied_embedding_is_stored(tmp_path: Path, tiny: Tiny) -> None:
    root = write_diffusers(tmp_path, tiny)
    save(
        {"encoder.embed_tokens.weight": tiny.text["token_embedding.weight"]},
        tmp_path / "probe" / "probe.safetensors",
    )
    folder = root / "text_encoder"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shutil.copy(tmp_path / "probe" / "probe.safetensors", folder / "tied.safetensors")
    shared = index["weight_map"].pop("shared.weight")
    index["weight_map"]["encoder.embed_tokens.weight"] = "tied.safetensors"
    write_json(folder / "model.safetensors.index.json", index)
    rewrite_without(folder, {"shared.weight", "encoder.embed_tokens.weight"})
    assert shared
    state = text_network(load(root)).state_dict()
    assert torch.equal(state["token_embedding.weight"], tiny.text["token_embedding.weight"])


def rewrite_without(folder: Path, names: set[str]) -> None:
    """Drop tensors from the numbered shards of a folder."""
    from safetensors.torch import load_file

    for path in folder.glob("model-*.safetensors"):
        tensors = load_file(path)
        save({name: t for name, t in tensors.items() if name not in names}, path)


def test_v2_notice_is_printed_when_such_weights_load(
    tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(write_original_v1(tmp_path / "v1", tiny))
        assert V2_NOTICE not in caplog.messages
        load(write_original_v2(tmp_path / "v2", tiny))
    assert caplog.messages == [V2_NOTICE]


def test_named_preset_keeps_its_numbers(root: Path) -> None:
    components = load(f"lingbot-world-fast={root}")
    preset = components.preset
    assert (preset.name, preset.chunk, preset.window, preset.sink) == (
        "lingbot-world-fast",
        3,
        18,
        9,
    )
    assert preset.licence == "Apache-2.0" and preset.dit == TINY_DIT


def test_weights_id(tmp_path: Path, tiny: Tiny) -> None:
    here = load(write_root_shards(tmp_path / "here", tiny)).weights_id
    there = load(write_root_shards(tmp_path / "there", tiny)).weights_id
    assert here == there and len(here) == 16
    other = load(write_root_shards(tmp_path / "other", make_tiny(seed=1))).weights_id
    assert other != here


@pytest.mark.parametrize("model", ["no such model", "", "  ", "pocket=", "fast=/tmp"])
def test_unknown_models(model: str) -> None:
    with pytest.raises(ConfigError, match="unknown model") as caught:
        load(model)
    assert "lingbot-world-v2-1.3b" in str(caught.value)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "~/nowhere/at/all"])
def test_a_path_that_is_not_there(model: str) -> None:
    with pytest.raises(LayoutError, match="no file or folder"):
        load(model)


@pytest.mark.parametrize("model", ["robbyant/lingbot-world-fast", "lingbot-world-v2-14b", "a/b"])
def test_the_hub_cannot_be_reached(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="from the hub"):
        locate(model)


def test_hub_downloads_become_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(tmp_path / repo_id)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    location = locate("lingbot-world-v2-1.3b")
    repos = ["robbyant/lingbot-world-v2-1.3b-causal-fast", "robbyant/lingbot-world-base-cam"]
    assert [repo for repo, _ in asked] == repos
    assert location.roots == tuple(tmp_path / repo for repo in repos)
    # Never the 150 GB of experts beside the parts.
    assert asked[1][1] == ["Wan2.1_VAE.pth", "models_t5*.pth", "google/umt5-xxl/*"]
    assert locate("somebody/unheard-of").preset is None


def test_downloading_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"worldline\[models\]"):
        locate("robbyant/lingbot-world-fast")


def test_random_weights_need_no_files_and_repeat() -> None:
    first = load("pocket", random_weights=True)
    second = load("pocket", random_weights=True)
    third = load("pocket", random_weights=True, seed=1)
    assert first.weights_id == second.weights_id != third.weights_id
    name = "blocks.0.self_attn.q.weight"
    same = first.dit.state_dict()[name]
    assert torch.equal(same, second.dit.state_dict()[name])
    assert not torch.equal(same, third.dit.state_dict()[name])
    for module in (first.dit, first.vae):
        assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
    with pytest.raises(ConfigError, match="unknown preset"):
        load("/some/folder", random_weights=True)


def test_random_text_states() -> None:
    text = load("pocket", random_weights=True).text
    states = text.encode(["one two", "one two", "three"])
    assert states.shape == (3, text.text_len, text.text_dim)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert int(states[0].abs().sum(-1).count_nonzero()) == 3
