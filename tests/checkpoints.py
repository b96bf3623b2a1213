"""Tiny random checkpoints in every layout that is published, and in our own.

All writers store the same tensors, so whatever the layout, the loaded networks must be equal. The
names of the converted component layouts come from the recorded key maps, not from our own renaming.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.presets import WAN_MEAN, WAN_STD
from worldline.models.wan.params import UMT5Params, WanVAEParams
from worldline.models.wan.text import UMT5Encoder
from worldline.models.wan.vae import WanVAE
from worldline.runtime.fill import fill_random

MAPS = Path(__file__).resolve().parent / "parity" / "data"
WORDS = ("a", "sandy", "court", "of", "tall", "red", "columns", "under", "snow", "the", "sea")

Tensors = dict[str, Tensor]
Writer = Callable[[Path, "Tiny"], Path]

# One head per 128 of width, as in every published network: root shards come without a config.
TINY_DIT = DiTParams(
    dim=256,
    ffn_dim=48,
    num_heads=2,
    num_layers=2,
    in_dim=36,
    out_dim=16,
    freq_dim=32,
    text_dim=32,
    text_len=512,
    eps=1e-6,
    control_dim=6,
)
TINY_VAE = WanVAEParams(
    dim=4,
    z_dim=16,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    mean=WAN_MEAN,
    std=WAN_STD,
)
TINY_UMT5 = UMT5Params(
    vocab=64,
    dim=32,
    dim_attn=32,
    dim_ffn=56,
    num_heads=4,
    num_layers=2,
    num_buckets=32,
    max_distance=128,
    eps=1e-6,
)


class Tiny(NamedTuple):
    """The tensors of one tiny model, original names; `dits` holds one network or two experts."""

    params: DiTParams
    dits: tuple[Tensors, ...]
    vae: Tensors
    text: Tensors


def make_tiny(params: DiTParams = TINY_DIT, *, experts: int = 1, seed: int = 0) -> Tiny:
    """Random tensors of a tiny model."""
    return Tiny(
        params=params,
        dits=tuple(_random(LingBotDiT(params), seed, f"dit{i}") for i in range(experts)),
        vae=_random(WanVAE(TINY_VAE), seed, "vae"),
        text=_random(UMT5Encoder(TINY_UMT5), seed, "text"),
    )


def _random(module: nn.Module, seed: int, label: str) -> Tensors:
    cpu = torch.device("cpu")
    fill_random(module, device=cpu, dtype_of=lambda name: torch.float32, seed=seed, label=label)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def write_original_v1(folder: Path, tiny: Tiny) -> Path:
    """`lingbot_world_fast/`, or `high_noise_model/` and `low_noise_model/` for two experts."""
    names = (
        ("high_noise_model", "low_noise_model") if len(tiny.dits) > 1 else ("lingbot_world_fast",)
    )
    for name, tensors in zip(names, tiny.dits, strict=True):
        write_shards(folder / name, tensors, stem="diffusion_pytorch_model")
        write_json(folder / name / "config.json", original_config(tiny.params))
    return _write_original_parts(folder, tiny)


def write_original_v2(folder: Path, tiny: Tiny) -> Path:
    """`transformers/` with the config above it."""
    write_shards(folder / "transformers", tiny.dits[0], stem="diffusion_pytorch_model")
    write_json(folder / "config.json", original_config(tiny.params))
    return _write_original_parts(folder, tiny)


def write_root_shards(folder: Path, tiny: Tiny) -> Path:
    """Shards and index at the top, no config; the parts of another release laid beside them."""
    write_shards(folder, tiny.dits[0], stem="model")
    return _write_original_parts(folder, tiny)


def write_diffusers(folder: Path, tiny: Tiny) -> Path:
    """`model_index.json` and a folder per component; the transformer keeps its original names."""
    write_json(folder / "model_index.json", {"_class_name": "LingBotWorldCausalDMDPipeline"})
    write_shards(folder / "transformer", tiny.dits[0], stem="diffusion_pytorch_model")
    write_json(folder / "transformer" / "config.json", diffusers_config(tiny.params))
    vae = rename(tiny.vae, "vae_key_map_original_to_diffusers.json")
    save(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    write_json(
        folder / "vae" / "config.json",
        {
            "_class_name": "AutoencoderKLWan",
            "base_dim": TINY_VAE.dim,
            "z_dim": TINY_VAE.z_dim,
            "dim_mult": TINY_VAE.dim_mult,
            "num_res_blocks": TINY_VAE.num_res_blocks,
            "temperal_downsample": TINY_VAE.temporal_downsample,
            "latents_mean": TINY_VAE.mean,
            "latents_std": TINY_VAE.std,
        },
    )
    text = rename(tiny.text, "umt5_key_map_original_to_hf.json")
    text["encoder.embed_tokens.weight"] = text["shared.weight"].clone()
    write_shards(folder / "text_encoder", text, stem="model")
    write_json(folder / "text_encoder" / "config.json", {"model_type": "umt5"})
    write_tokenizer(folder / "tokenizer")
    return folder


def write_worldline(folder: Path, tiny: Tiny) -> Path:
    """Our own single file, with the tokenizer beside it; returns the file."""
    parts = (("dit.", tiny.dits[0]), ("vae.", tiny.vae), ("text.", tiny.text))
    tensors = {prefix + name: t for prefix, part in parts for name, t in part.items()}
    metadata = {"preset": "lingbot-world-fast", "config": json.dumps({"dit": {"num_heads": 2}})}
    path = folder / "tiny.safetensors"
    save(tensors, path, metadata=metadata)
    write_tokenizer(folder / "tokenizer")
    return path


WRITERS: dict[str, Writer] = {
    "original-v1": write_original_v1,
    "original-v2": write_original_v2,
    "root-shards": write_root_shards,
    "diffusers": write_diffusers,
    "worldline": write_worldline,
}


def write_shards(folder: Path, tensors: Tensors, *, stem: str, count: int = 3) -> None:
    """Several files and their index, every tensor in one of them."""
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(count):
        file = f"{stem}-{shard + 1:05d}-of-{count:05d}.safetensors"
        mine = names[shard::count]
        save({name: tensors[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(
        folder / f"{stem}.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def write_tokenizer(folder: Path) -> None:
    """A word tokenizer with UMT5's special ids: 0 pad, 1 end of text, appended to every prompt."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: i + 3 for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))


def original_config(params: DiTParams) -> dict[str, object]:
    """`config.json` as the original releases write it."""
    return {
        "_class_name": "WanModel",
        "model_type": "i2v",
        "dim": params.dim,
        "ffn_dim": params.ffn_dim,
        "freq_dim": params.freq_dim,
        "in_dim": params.in_dim,
        "out_dim": params.out_dim,
        "num_heads": params.num_heads,
        "num_layers": params.num_layers,
        "text_len": params.text_len,
        "eps": params.eps,
    }


def diffusers_config(params: DiTParams) -> dict[str, object]:
    """`transformer/config.json` as the converted releases write it."""
    return {
        "_class_name": "CausalLingBotWorldTransformer3DModel",
        "num_attention_heads": params.num_heads,
        "attention_head_dim": params.head_dim,
        "in_channels": params.in_dim,
        "out_channels": params.out_dim,
        "ffn_dim": params.ffn_dim,
        "freq_dim": params.freq_dim,
        "text_dim": params.text_dim,
        "num_layers": params.num_layers,
        "eps": params.eps,
        "rope_max_seq_len": 1024,
        "local_attn_size": -1,
        "sink_size": 1,
        "num_frames_per_block": 2,
        "sliding_window_num_frames": 5,
    }


def rename(tensors: Tensors, key_map: str) -> Tensors:
    """Tensors under the names of a converted layout; every name must be in the recorded map."""
    names: dict[str, str] = json.loads((MAPS / key_map).read_text())
    return {names[name]: tensor for name, tensor in tensors.items()}


def save(tensors: Tensors, path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """One safetensors file, its folder made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


def write_json(path: Path, value: object) -> None:
    """One JSON file, its folder made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_original_parts(folder: Path, tiny: Tiny) -> Path:
    """The pickled VAE and text encoder and the tokenizer of the original releases."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tiny.vae, folder / "Wan2.1_VAE.pth")
    torch.save(tiny.text, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder
