"""Layouts are found from files alone, and broken files are told by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from tests.checkpoints import (
    TINY_DIT,
    WRITERS,
    Tiny,
    make_tiny,
    save,
    write_diffusers,
    write_json,
    write_original_v1,
    write_root_shards,
    write_shards,
)
from worldline.core.errors import CheckpointError, KeysError, LayoutError
from worldline.models.architecture import control_channels
from worldline.models.identify import identify
from worldline.models.layouts import card_licence, find_layout, stated_frames
from worldline.models.lingbot.params import DiTParams
from worldline.models.presets import (
    BASE_ACT,
    BASE_CAM,
    DIT_1_3B,
    DIT_14B,
    FAST,
    POCKET,
    V2_1_3B,
    V2_14B,
)
from worldline.models.tensor_files import read_header, weight_files

Broken = tuple[Path, Path]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny()


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_is_found_whatever_the_path(name: str, tiny: Tiny, tmp_path: Path) -> None:
    misleading = tmp_path / "lingbot-world-base-act-diffusers-v2"
    root = WRITERS[name](misleading, tiny)
    layout = find_layout([root])
    assert layout.name == name
    assert len(layout.dit) == 1 and layout.vae and layout.text and layout.tokenizer


def test_v1_folder_with_both_networks(tmp_path: Path, tiny: Tiny) -> None:
    write_original_v1(tmp_path, make_tiny(experts=2))
    assert len(find_layout([tmp_path]).dit) == 2
    write_original_v1(tmp_path, tiny)
    causal = find_layout([tmp_path])
    assert [files.folder.name for files in causal.dit] == ["lingbot_world_fast"]
    experts = find_layout([tmp_path], prefer="experts")
    assert [files.folder.name for files in experts.dit] == ["high_noise_model", "low_noise_model"]


def test_one_expert_alone_is_an_error(tmp_path: Path) -> None:
    write_original_v1(tmp_path, make_tiny(experts=2))
    shutil.rmtree(tmp_path / "low_noise_model")
    with pytest.raises(LayoutError, match="low_noise_model is missing"):
        find_layout([tmp_path])


def test_parts_may_lie_in_a_second_folder(tmp_path: Path, tiny: Tiny) -> None:
    write_root_shards(tmp_path / "dit", tiny)
    write_root_shards(tmp_path / "parts", tiny)
    (tmp_path / "dit" / "Wan2.1_VAE.pth").unlink()
    layout = find_layout([tmp_path / "dit", tmp_path / "parts"])
    assert layout.vae is not None and layout.vae.folder == tmp_path / "parts"
    assert layout.text is not None and layout.text.folder == tmp_path / "dit"


def test_causal_network_before_distillation_is_found(tmp_path: Path, tiny: Tiny) -> None:
    write_diffusers(tmp_path, tiny)
    (tmp_path / "transformer").rename(tmp_path / "transformer_causal")
    layout = find_layout([tmp_path])
    assert layout.name == "diffusers"
    assert not identify(layout, TINY_DIT, None).live


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["model.bin"]])
def test_a_folder_without_a_model(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("x")
    with pytest.raises(LayoutError, match="no known checkpoint layout") as caught:
        find_layout([tmp_path])
    assert all(name in str(caught.value) for name in content)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no file or folder"):
        find_layout([tmp_path / "nothing"])


def test_shards_of_something_else(tmp_path: Path) -> None:
    save({"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(LayoutError):
        find_layout([tmp_path])


def test_diffusers_folder_without_a_transformer(tmp_path: Path, tiny: Tiny) -> None:
    write_diffusers(tmp_path, tiny)
    shutil.rmtree(tmp_path / "transformer")
    with pytest.raises(LayoutError, match="holds no transformer"):
        find_layout([tmp_path])


def cut_short(root: Path) -> Broken:
    shard = root / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    return root, shard


def header_cut(root: Path) -> Broken:
    shard = root / "model-00001-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:200])
    return root, shard


def empty(root: Path) -> Broken:
    shard = root / "model-00001-of-00003.safetensors"
    shard.write_bytes(b"")
    return root, shard


def not_safetensors(root: Path) -> Broken:
    shard = root / "model-00001-of-00003.safetensors"
    shard.write_bytes((2).to_bytes(8, "little") + b"[]")
    return root, shard


def shard_gone(root: Path) -> Broken:
    shard = root / "model-00003-of-00003.safetensors"
    shard.unlink()
    return root, shard


def index_gone(root: Path) -> Broken:
    index = root / "model.safetensors.index.json"
    index.unlink()
    return root, index


def index_broken(root: Path) -> Broken:
    index = root / "model.safetensors.index.json"
    index.write_text("{not json")
    return root, index


def index_empty(root: Path) -> Broken:
    index = root / "model.safetensors.index.json"
    index.write_text("{}")
    return root, index


def index_leads_outside(root: Path) -> Broken:
    index = root / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"a": "../model-00001-of-00003.safetensors"}})
    return root, index


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        header_cut,
        empty,
        not_safetensors,
        shard_gone,
        index_gone,
        index_broken,
        index_empty,
        index_leads_outside,
    ],
)
def test_damage_names_the_file(
    damage: Callable[[Path], Broken], tiny: Tiny, tmp_path: Path
) -> None:
    root, file = damage(write_root_shards(tmp_path, tiny))
    with pytest.raises(CheckpointError) as caught:
        find_layout([root])
    assert file.name in str(caught.value)


def test_the_same_tensor_in_two_shards(tmp_path: Path, tiny: Tiny) -> None:
    write_shards(tmp_path, tiny.dits[0], stem="model")
    first = tmp_path / "model-00001-of-00003.safetensors"
    shutil.copy(first, tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="in two files"):
        find_layout([tmp_path])


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    save({"a": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    found = weight_files(tmp_path)
    assert found is not None and len(found.files) == 1


def test_header_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save({"x": torch.zeros(2, 3, dtype=torch.bfloat16)}, path, metadata={"preset": "pocket"})
    header = read_header(path)
    assert header.tensors["x"] == ("BF16", (2, 3), 12)
    assert header.metadata == {"preset": "pocket"}


@pytest.mark.parametrize(("width", "channels"), [(1536, 6), (1792, 7)])
def test_control_type_from_the_embedding_width(width: int, channels: int) -> None:
    assert control_channels((5120, width)) == channels


@pytest.mark.parametrize("width", [256, 1024, 1537, 2048])
def test_unknown_control_width(width: int) -> None:
    with pytest.raises(KeysError, match="fits no known control"):
        control_channels((5120, width))


def test_model_card_licence(tmp_path: Path) -> None:
    assert card_licence(tmp_path) is None
    card = tmp_path / "README.md"
    card.write_text("---\ntags:\n- video\nlicense: CC-BY-NC-SA-4.0\n---\n# Model\n")
    assert card_licence(tmp_path) == "cc-by-nc-sa-4.0"
    card.write_text("# Model\nlicense: apache-2.0\n")
    assert card_licence(tmp_path) is None


def act(params: DiTParams) -> DiTParams:
    return msgspec.structs.replace(params, control_dim=7)


@pytest.mark.parametrize(
    ("writer", "experts", "dit", "preset"),
    [
        ("original-v1", 1, DIT_14B, FAST),
        ("original-v1", 2, DIT_14B, BASE_CAM),
        ("original-v1", 2, act(DIT_14B), BASE_ACT),
        ("original-v2", 1, DIT_14B, V2_14B),
        ("root-shards", 1, DIT_1_3B, V2_1_3B),
        ("diffusers", 1, DIT_1_3B, V2_1_3B),
    ],
)
def test_published_architectures_become_their_presets(
    writer: str, experts: int, dit: DiTParams, preset: object, tmp_path: Path
) -> None:
    layout = find_layout([WRITERS[writer](tmp_path, make_tiny(experts=experts))])
    assert identify(layout, dit, None) == preset


def test_root_shards_with_a_config_are_v1(tmp_path: Path, tiny: Tiny) -> None:
    write_root_shards(tmp_path, tiny)
    write_json(tmp_path / "config.json", {"dim": 5120, "num_heads": 40})
    assert identify(find_layout([tmp_path]), DIT_14B, None) == FAST


@pytest.mark.parametrize(
    ("card", "licence", "preset"),
    [
        ("---\nlicense: cc-by-nc-sa-4.0\n---\n", "CC BY-NC-SA 4.0", "lingbot-world-v2-14b"),
        ("---\nlicense: apache-2.0\n---\n", "Apache-2.0", "lingbot-world-fast"),
        (None, "unstated", "lingbot-world-fast"),
    ],
)
def test_diffusers_folder_takes_its_version_from_the_card(
    card: str | None, licence: str, preset: str, tmp_path: Path, tiny: Tiny
) -> None:
    write_diffusers(tmp_path, tiny)
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    found = identify(find_layout([tmp_path]), DIT_14B, None)
    assert (found.licence, found.name) == (licence, preset)
    assert (found.notice is None) == (licence == "Apache-2.0")


def test_custom_architecture_takes_the_frames_the_files_state(tmp_path: Path, tiny: Tiny) -> None:
    layout = find_layout([write_diffusers(tmp_path, tiny)])
    assert stated_frames(layout) == {"chunk": 2, "window": 5, "sink": 1}
    custom = identify(layout, TINY_DIT, None)
    assert (custom.name, custom.chunk, custom.window, custom.sink) == ("custom", None, None, None)
    named = identify(layout, TINY_DIT, V2_14B)
    assert (named.name, named.chunk, named.window, named.sink) == (V2_14B.name, 4, 18, 6)
    assert named.dit == TINY_DIT and named.notice == V2_14B.notice


def test_metadata_of_our_own_file(tmp_path: Path, tiny: Tiny) -> None:
    path = WRITERS["worldline"](tmp_path, tiny)
    layout = find_layout([path])
    assert layout.metadata["preset"] == "lingbot-world-fast"
    assert json.loads(layout.metadata["config"]) == {"dit": {"num_heads": 2}}
    assert [files.prefix for files in (*layout.dit, layout.vae, layout.text) if files] == [
        "dit.",
        "vae.",
        "text.",
    ]


def test_files_of_another_kind_than_the_named_preset(tmp_path: Path, tiny: Tiny) -> None:
    experts = find_layout([write_original_v1(tmp_path / "base", make_tiny(experts=2))])
    with pytest.raises(LayoutError, match="expected one causal transformer"):
        identify(experts, TINY_DIT, FAST)
    causal = find_layout([write_original_v1(tmp_path / "fast", tiny)], prefer="experts")
    with pytest.raises(LayoutError, match="expected a high-noise and a low-noise expert"):
        identify(causal, TINY_DIT, BASE_CAM)
    with pytest.raises(LayoutError, match="expected a worldline file"):
        identify(causal, TINY_DIT, POCKET)
