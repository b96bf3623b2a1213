"""Read a network's numbers off its tensors, so that any size of checkpoint loads.

Widths and depths come from shapes, which cannot lie about the weights. What no shape shows (heads
of the DiT, epsilons, the text length) comes from `config.json`, and what neither shows from a
published model `like` this one. So a tensor that is missing costs no more than its own line in the
comparison of keys that follows. Tensor names here are the original ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldline.core.errors import KeysError
from worldline.models.lingbot.params import ACTION_CHANNELS, CAMERA_CHANNELS, DiTParams
from worldline.models.tensor_files import Shape
from worldline.models.wan.params import UMT5Params, WanVAEParams

HEAD_DIM = 128  # of every published DiT; used only where no config states the heads
CONTROL = "patch_embedding_wancamctrl.weight"
# One channel of rays or keys is folded from 8x8 pixels and patched 2x2.
CONTROL_CELL = 8 * 8 * 2 * 2

Shapes = Mapping[str, Shape]
Config = Mapping[str, Any]


def dit_params(shapes: Shapes, config: Config, *, like: DiTParams) -> DiTParams:
    """Numbers of a LingBot DiT.

    Raises `KeysError` when the control width or the number of heads is unknown, `ValueError` or
    `TypeError` for a config that holds no numbers where it should.
    """
    dim = _size(shapes, "blocks.0.self_attn.q.weight", 0, like.dim)
    dim = _size(shapes, "patch_embedding.weight", 0, dim)
    return DiTParams(
        dim=dim,
        ffn_dim=_size(shapes, "blocks.0.ffn.0.weight", 0, like.ffn_dim),
        num_heads=_heads(dim, config, like),
        num_layers=_depth(shapes, like.num_layers),
        in_dim=_size(shapes, "patch_embedding.weight", 1, like.in_dim),
        out_dim=_size(shapes, "head.head.weight", 0, 4 * like.out_dim) // 4,
        freq_dim=_size(shapes, "time_embedding.0.weight", 1, like.freq_dim),
        text_dim=_size(shapes, "text_embedding.0.weight", 1, like.text_dim),
        text_len=_positive(config.get("text_len") or like.text_len),
        eps=float(config.get("eps") or like.eps),
        control_dim=control_channels(shapes[CONTROL]) if CONTROL in shapes else like.control_dim,
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
    """Numbers of a Wan VAE; errors as in `dit_params`."""
    return WanVAEParams(
        dim=_size(shapes, "encoder.conv1.weight", 0, like.dim),
        z_dim=_size(shapes, "conv2.weight", 0, like.z_dim),
        dim_mult=tuple(map(_positive, config.get("dim_mult") or like.dim_mult)),
        num_res_blocks=_positive(config.get("num_res_blocks") or like.num_res_blocks),
        # The published config spells it so.
        temporal_downsample=tuple(
            map(bool, config.get("temperal_downsample") or like.temporal_downsample)
        ),
        mean=tuple(map(float, config.get("latents_mean") or like.mean)),
        std=tuple(map(float, config.get("latents_std") or like.std)),
    )


def umt5_params(shapes: Shapes, config: Config, *, like: UMT5Params) -> UMT5Params:
    """Numbers of a UMT5 encoder; errors as in `dit_params`."""
    bias = "blocks.0.pos_embedding.embedding.weight"
    distance = config.get("relative_attention_max_distance") or like.max_distance
    return UMT5Params(
        vocab=_size(shapes, "token_embedding.weight", 0, like.vocab),
        dim=_size(shapes, "token_embedding.weight", 1, like.dim),
        dim_attn=_size(shapes, "blocks.0.attn.q.weight", 0, like.dim_attn),
        dim_ffn=_size(shapes, "blocks.0.ffn.fc1.weight", 0, like.dim_ffn),
        num_heads=_size(shapes, bias, 1, like.num_heads),
        num_layers=_depth(shapes, like.num_layers),
        num_buckets=_size(shapes, bias, 0, like.num_buckets),
        max_distance=_positive(distance),
        eps=float(config.get("layer_norm_epsilon") or like.eps),
    )


def _size(shapes: Shapes, name: str, axis: int, otherwise: int) -> int:
    """One size of a tensor, or `otherwise` where the tensor or the axis is not there."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) and shape[axis] > 0 else otherwise


def _depth(shapes: Shapes, otherwise: int) -> int:
    """Number of blocks: one more than the largest index, unless that index is absurd."""
    parts = (name.split(".")[1] for name in shapes if name.startswith("blocks."))
    numbers = {int(part) for part in parts if part.isdecimal() and len(part) < 5}
    if not numbers:
        return otherwise
    return max(numbers) + 1 if max(numbers) < 2 * len(numbers) + 8 else len(numbers)


def _positive(value: Any) -> int:
    """A whole number above 0 from a config; raises `ValueError`."""
    number = int(value)
    if number < 1:
        raise ValueError(f"{value!r} where a positive number belongs")
    return number


def _heads(dim: int, config: Config, like: DiTParams) -> int:
    stated = config.get("num_heads") or config.get("num_attention_heads")
    if stated:
        return _positive(stated)
    if dim == like.dim:
        return like.num_heads
    if dim % HEAD_DIM:
        raise KeysError(
            "the number of attention heads is not stated",
            expected=f"num_heads in config.json, or a width divisible by {HEAD_DIM}",
            got=f"width {dim}",
        )
    return dim // HEAD_DIM
