"""Every way a checkpoint can be wrong: one typed error, before a weight is read."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from tests.checkpoints import (
    TINY_DIT,
    Tiny,
    make_tiny,
    write_diffusers,
    write_json,
    write_root_shards,
    write_shards,
)
from worldline.core.errors import CheckpointError, ConfigError, KeysError, UnsafeFileError
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


def test_an_unreadable_tokenizer_fails_before_the_weights_are_read(root: Path) -> None:
    (root / "google" / "umt5-xxl" / "tokenizer.json").write_text("{}")
    reports: list[int] = []
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        load(root, progress=lambda done, total, label: reports.append(done))
    assert reports == []
