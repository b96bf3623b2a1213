"""The text encoder against recorded outputs, its tokenizer, and the published names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from worldline.core.errors import CheckpointError, ConfigError, PromptError, ShapeError
from worldline.models.wan.convert import umt5_key_from_hf, vae_key_from_diffusers
from worldline.models.wan.params import UMT5Params
from worldline.models.wan.text import UMT5Encoder, UMT5Text, load_tokenizer, position_buckets

TOLERANCE = 1e-4
Records = dict[str, Tensor]

XXL = UMT5Params(
    vocab=256384,
    dim=4096,
    dim_attn=4096,
    dim_ffn=10240,
    num_heads=64,
    num_layers=24,
    num_buckets=32,
    max_distance=128,
    eps=1e-6,
)


@pytest.fixture(scope="module")
def records(golden: Callable[[str], Path]) -> Records:
    return load_file(golden("umt5.safetensors"))


@pytest.fixture(scope="module")
def lengths(golden: Callable[[str], Path]) -> list[int]:
    with safe_open(golden("umt5.safetensors"), "pt") as file:
        return json.loads(file.metadata()["lens"])


@pytest.fixture(scope="module")
def encoder(golden: Callable[[str], Path]) -> UMT5Encoder:
    path = golden("umt5_weights.safetensors")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    same = ("vocab", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets")
    model = UMT5Encoder(
        UMT5Params(**{name: config[name] for name in same}, max_distance=128, eps=1e-6)
    )
    model.load_state_dict(load_file(path))
    return model.requires_grad_(False).eval()


class RecordedTokens:
    """Gives the recorded ids of row `int(text)`, as a tokenizer would."""

    def __init__(self, ids: Tensor, lengths: list[int]) -> None:
        self._rows = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]

    def __call__(self, text: str, max_length: int) -> list[int]:
        return self._rows[int(text)][:max_length]


def close(ours: Tensor, recorded: Tensor) -> None:
    torch.testing.assert_close(ours, recorded, atol=TOLERANCE, rtol=0)


def test_states_equal_the_reference(encoder: UMT5Encoder, records: Records) -> None:
    close(encoder(records["ids"], records["mask"]), records["out_official"])
    close(encoder(records["ids"], records["mask"]), records["out_transformers"])


def test_the_mask_matters(encoder: UMT5Encoder, records: Records) -> None:
    unmasked = encoder(records["ids"], torch.ones_like(records["mask"]))
    close(unmasked, records["out_no_mask"])
    assert (unmasked - records["out_official"]).abs().max() > 100 * TOLERANCE


def test_distance_buckets_equal_the_reference(records: Records) -> None:
    buckets = position_buckets(64, 64, buckets=32, max_distance=128)
    assert torch.equal(buckets[:1], records["rel_bucket"].long())
    assert torch.equal(buckets[-1:], records["rel_bucket_last_row"].long())


def test_far_keys_share_the_last_bucket_of_their_side() -> None:
    buckets = position_buckets(1, 512, buckets=32, max_distance=128)[0]
    assert buckets[0] == 0 and buckets[1] == 17
    assert set(buckets[128:].tolist()) == {31}
    left = position_buckets(512, 1, buckets=32, max_distance=128)[:, 0]
    assert set(left[128:].tolist()) == {15}
    assert bool((buckets[1:].diff() >= 0).all())


def test_prompts_become_states_with_zero_rows_after_the_last_token(
    encoder: UMT5Encoder, records: Records, lengths: list[int]
) -> None:
    text = UMT5Text(encoder, RecordedTokens(records["ids"], lengths), text_len=64)
    states = text.encode([str(i) for i in range(len(lengths))])
    close(states, records["dit_context_zero_padded"])
    for row, length in zip(states, lengths, strict=True):
        assert not row[length:].any()
        assert row[:length].any(dim=1).all()
    assert (text.text_len, text.text_dim) == (64, 32)


def test_a_prompt_does_not_depend_on_its_neighbours(
    encoder: UMT5Encoder, records: Records, lengths: list[int]
) -> None:
    text = UMT5Text(encoder, RecordedTokens(records["ids"], lengths), text_len=64)
    together = text.encode(["0", "1", "2", "3"])
    assert all(torch.equal(together[i : i + 1], text.encode([str(i)])) for i in range(4))


def test_text_beyond_the_length_is_cut(
    encoder: UMT5Encoder, records: Records, lengths: list[int]
) -> None:
    text = UMT5Text(encoder, RecordedTokens(records["ids"], lengths), text_len=7)
    states = text.encode(["0"])
    assert states.shape == (1, 7, 32)
    close(states, encoder(records["ids"][:1, :7], records["mask"][:1, :7]))


def test_no_prompt_and_no_tokens_are_refused(
    encoder: UMT5Encoder, records: Records, lengths: list[int]
) -> None:
    text = UMT5Text(encoder, RecordedTokens(records["ids"], lengths), text_len=7)
    with pytest.raises(PromptError):
        text.encode([])
    with pytest.raises(ShapeError, match="token ids"):
        encoder(torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, 0))
    with pytest.raises(ShapeError, match="token ids"):
        encoder(records["ids"], records["mask"][:1])


def test_bfloat16_stays_near(encoder: UMT5Encoder, records: Records) -> None:
    half = UMT5Encoder(encoder.params)
    half.load_state_dict(encoder.state_dict())
    half.requires_grad_(False).to(torch.bfloat16)
    states = half(records["ids"], records["mask"])
    assert states.dtype == torch.bfloat16
    seen = records["mask"].bool()
    assert (states.float() - records["out_official"])[seen].abs().mean() < 0.03


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_reference(encoder: UMT5Encoder, records: Records) -> None:
    model = UMT5Encoder(encoder.params)
    model.load_state_dict(encoder.state_dict())
    model.requires_grad_(False).cuda()
    states = model(records["ids"].cuda(), records["mask"].cuda()).cpu()
    close(states, records["out_official"])


def test_full_size_network_has_the_published_size() -> None:
    with torch.device("meta"):
        state = UMT5Encoder(XXL).state_dict()
    assert len(state) == 242
    assert sum(tensor.numel() for tensor in state.values()) == 5_680_910_336
    assert state["blocks.23.pos_embedding.embedding.weight"].shape == (32, 64)


def key_map(golden: Callable[[str], Path], name: str) -> dict[str, str]:
    return json.loads(golden(name).read_text(encoding="utf-8"))


def test_every_hf_name_has_its_original(golden: Callable[[str], Path]) -> None:
    pairs = key_map(golden, "umt5_key_map_original_to_hf.json")
    assert {hf: umt5_key_from_hf(hf) for hf in pairs.values()} == {
        hf: original for original, hf in pairs.items()
    }
    assert umt5_key_from_hf("encoder.embed_tokens.weight") == "token_embedding.weight"
    assert umt5_key_from_hf("encoder.block.17.layer.1.DenseReluDense.wi_1.weight") == (
        "blocks.17.ffn.fc1.weight"
    )


def test_every_diffusers_name_has_its_original(golden: Callable[[str], Path]) -> None:
    pairs = key_map(golden, "vae_key_map_original_to_diffusers.json")
    assert len(pairs) == 194
    assert {theirs: vae_key_from_diffusers(theirs) for theirs in pairs.values()} == {
        theirs: original for original, theirs in pairs.items()
    }


@pytest.mark.parametrize("rename", [umt5_key_from_hf, vae_key_from_diffusers])
def test_an_unknown_name_stays_itself(rename: Callable[[str], str]) -> None:
    assert rename("visual_projection.weight") == "visual_projection.weight"


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """A T5 tokenizer of a dozen pieces, laid out as the published one."""
    pytest.importorskip("transformers", reason="the extra 'models' is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdef", "▁a"]
    scores = [0.0, 0.0, 0.0, -2.0, *[-3.0] * 6, -2.5]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "T5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>"}
    config["unk_token"] = "<unk>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_tokenizer_ends_the_text_and_cuts_before_the_end(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    whole = tokenizer("a bad cab", 512)
    assert whole == [10, 3, 5, 4, 7, 3, 6, 4, 5, 1]
    assert tokenizer("a bad cab", 5) == [*whole[:4], 1]
    assert tokenizer("", 512) == [1]


def test_prompt_is_cleaned_before_it_is_tokenised(
    tokenizer_folder: Path, encoder: UMT5Encoder
) -> None:
    text = UMT5Text(encoder, load_tokenizer(tokenizer_folder), text_len=12)
    assert torch.equal(text.encode(["  a\n\tbad  cab "]), text.encode(["a bad cab"]))


def test_folder_without_tokenizer_is_an_error(tokenizer_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer folder"):
        load_tokenizer(tokenizer_folder / "absent")
    for broken in ("{", "{}"):
        (tokenizer_folder / "tokenizer.json").write_text(broken, encoding="utf-8")
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_tokenizer(tokenizer_folder)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"worldline\[models\]"):
        load_tokenizer(tmp_path)
