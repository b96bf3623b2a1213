"""Read a network's numbers off its tensors, so that any size of checkpoint loads.

Widths and depths come from shapes, which cannot lie about the weights; only what no shape shows
(heads of the DiT, epsilons, the text length) is taken from `config.json`, with the published
models' value where that is absent. Tensor names here are the original ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldline.core.errors import KeysError
from worldline.models.lingbot.params import ACTION_CHANNELS, CAMERA_CHANNELS, DiTParams
from worldline.models.tensor_files import Shape
from worldline.models.wan.params import UMT5Params, WanVAEParams

HEAD_DIM = 128  # of every published DiT; used only where no config states the heads
TEXT_LEN = 512
EPS = 1e-6
CONTROL = "patch_embedding_wancamctrl.weight"
# One channel of rays or keys is folded from 8x8 pixels and patched 2x2.
CONTROL_CELL = 8 * 8 * 2 * 2

Shapes = Mapping[str, Shape]
Config = Mapping[str, Any]


def dit_params(shapes: Shapes, config: Config, *, heads: int | None = None) -> DiTParams:
    """Numbers of a LingBot DiT; `heads` stands in where the config has none.

    Raises `KeysError` when this is no LingBot transformer or its control width is unknown.
    """
    _require(
        shapes,
        "a LingBot transformer",
        (
            "patch_embedding.weight",
            CONTROL,
            "blocks.0.ffn.0.weight",
            "head.head.weight",
            "text_embedding.0.weight",
            "time_embedding.0.weight",
        ),
    )
    dim = _size(shapes, "patch_embedding.weight", 0)
    return DiTParams(
        dim=dim,
        ffn_dim=_size(shapes, "blocks.0.ffn.0.weight", 0),
        num_heads=_heads(dim, config, heads),
        num_layers=_depth(shapes),
        in_dim=_size(shapes, "patch_embedding.weight", 1),
        out_dim=_size(shapes, "head.head.weight", 0) // 4,
        freq_dim=_size(shapes, "time_embedding.0.weight", 1),
        text_dim=_size(shapes, "text_embedding.0.weight", 1),
        text_len=int(config.get("text_len") or TEXT_LEN),
        eps=float(config.get("eps") or EPS),
        control_dim=control_channels(shapes[CONTROL]),
    )


def control_channels(shape: Shape) -> int:
    """6 (camera rays) or 7 (ray directions and keys) from the shape of the control embedding."""
    width = shape[-1] if shape else 0
    channels, rest = divmod(width, CONTROL_CELL)
    if rest or channels not in (CAMERA_CHANNELS, ACTION_CHANNELS):
        raise KeysError(
            f"the width of {CONTROL} fits no known control",
            expected=f"{CAMERA_CHANNELS * CONTROL_CELL} (camera) or "
            f"{ACTION_CHANNELS * CONTROL_CELL} (camera and keys)",
            got=width,
        )
    return channels


def vae_params(shapes: Shapes, config: Config, *, like: WanVAEParams) -> WanVAEParams:
    """Numbers of a Wan VAE; `like` gives what neither shapes nor config state."""
    _require(shapes, "a Wan VAE", ("encoder.conv1.weight", "conv2.weight"))
    return WanVAEParams(
        dim=_size(shapes, "encoder.conv1.weight", 0),
        z_dim=_size(shapes, "conv2.weight", 0),
        dim_mult=tuple(config.get("dim_mult") or like.dim_mult),
        num_res_blocks=int(config.get("num_res_blocks") or like.num_res_blocks),
        # The published config spells it so.
        temporal_downsample=tuple(config.get("temperal_downsample") or like.temporal_downsample),
        mean=tuple(config.get("latents_mean") or like.mean),
        std=tuple(config.get("latents_std") or like.std),
    )


def umt5_params(shapes: Shapes, config: Config, *, like: UMT5Params) -> UMT5Params:
    """Numbers of a UMT5 encoder; `like` gives what neither shapes nor config state."""
    bias = "blocks.0.pos_embedding.embedding.weight"
    _require(
        shapes,
        "a UMT5 encoder",
        ("token_embedding.weight", "blocks.0.attn.q.weight", "blocks.0.ffn.fc1.weight", bias),
    )
    return UMT5Params(
        vocab=_size(shapes, "token_embedding.weight", 0),
        dim=_size(shapes, "token_embedding.weight", 1),
        dim_attn=_size(shapes, "blocks.0.attn.q.weight", 0),
        dim_ffn=_size(shapes, "blocks.0.ffn.fc1.weight", 0),
        num_heads=_size(shapes, bias, 1),
        num_layers=_depth(shapes),
        num_buckets=_size(shapes, bias, 0),
        max_distance=int(config.get("relative_attention_max_distance") or like.max_distance),
        eps=float(config.get("layer_norm_epsilon") or like.eps),
    )


def _require(shapes: Shapes, what: str, names: tuple[str, ...]) -> None:
    absent = [name for name in names if name not in shapes]
    if absent:
        raise KeysError(f"these weights are not {what}", expected=", ".join(absent))


def _depth(shapes: Shapes) -> int:
    """Number of blocks: one more than the largest index."""
    numbers = (name.split(".")[1] for name in shapes if name.startswith("blocks."))
    return 1 + max(int(number) for number in numbers if number.isdecimal())


def _size(shapes: Shapes, name: str, axis: int) -> int:
    """One size of a tensor that may have any rank."""
    shape = shapes[name]
    if axis >= len(shape):
        raise KeysError(f"{name} has too few axes", expected=f"at least {axis + 1}", got=shape)
    return shape[axis]


def _heads(dim: int, config: Config, heads: int | None) -> int:
    stated = config.get("num_heads") or config.get("num_attention_heads") or heads
    if stated:
        return int(stated)
    if dim % HEAD_DIM:
        raise KeysError(
            "the number of attention heads is not stated",
            expected=f"num_heads in config.json, or a width divisible by {HEAD_DIM}",
            got=f"width {dim}",
        )
    return dim // HEAD_DIM
