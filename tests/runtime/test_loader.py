"""Loading end to end: every layout to identical networks, in the right types, told as it goes."""

from __future__ import annotations

import json
import logging
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
)
from worldline.core.errors import (
    CapacityError,
    ConfigError,
)
from worldline.models.presets import V2_NOTICE
from worldline.models.wan.text import UMT5Text
from worldline.runtime.loader import Components, load_components

CPU = "cpu"


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


def test_random_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldline.runtime.loader.host_bytes", lambda: 20 << 30)
    with pytest.raises(CapacityError, match="at most 20480 MiB"):
        load("lingbot-world-base-cam", random_weights=True)


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
