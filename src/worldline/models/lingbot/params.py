"""The numbers that make a LingBot-World transformer."""

from __future__ import annotations

import msgspec

from worldline.core.errors import ConfigError

CAMERA_CHANNELS = 6
ACTION_CHANNELS = 7


class DiTParams(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture of the DiT; no defaults, presets carry the numbers.

    `control_dim` is 6 for camera rays (origin and direction) and 7 for ray directions with four
    key channels; each channel is folded from 8x8 pixels, then patched 2x2.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    out_dim: int
    freq_dim: int
    text_dim: int
    text_len: int
    eps: float
    control_dim: int

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ConfigError(
                "width does not split into heads of even size",
                expected="dim divisible by num_heads with an even quotient",
                got=f"dim {self.dim}, num_heads {self.num_heads}",
            )
        if self.control_dim not in (CAMERA_CHANNELS, ACTION_CHANNELS):
            raise ConfigError("unknown control width", expected="6 or 7", got=self.control_dim)

    @property
    def head_dim(self) -> int:
        """Width of one attention head, `D`."""
        return self.dim // self.num_heads

    @property
    def control_channels(self) -> int:
        """Channels of the folded control tensor: 384 for camera, 448 for action."""
        return self.control_dim * 64
