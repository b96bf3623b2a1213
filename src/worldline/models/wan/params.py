"""The numbers that make a Wan 2.1 VAE and a UMT5 encoder; presets carry the values."""

from __future__ import annotations

import msgspec

from worldline.core.errors import ConfigError

# Every causal convolution spans three frames: its own and the two before it.
CAUSAL_TAPS = 3


class WanVAEParams(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture and latent statistics of the VAE.

    `dim` is the width at full resolution and `dim_mult` its multiple per level. Each level but the
    last halves height and width; where `temporal_downsample` is true it halves the frames too.
    `mean` and `std` hold `z_dim` numbers: `latent = (mu - mean) / std`.
    """

    dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ConfigError(
                "temporal_downsample does not fit the levels of the VAE",
                expected=f"{len(self.dim_mult) - 1} flags",
                got=len(self.temporal_downsample),
            )
        if len(self.mean) != self.z_dim or len(self.std) != self.z_dim:
            raise ConfigError(
                "latent statistics do not fit the latent width",
                expected=f"{self.z_dim} means and deviations",
                got=f"{len(self.mean)} and {len(self.std)}",
            )

    @property
    def space_stride(self) -> int:
        """Pixels per latent cell along height and width (8)."""
        return 2 ** (len(self.dim_mult) - 1)

    @property
    def time_stride(self) -> int:
        """Pixel frames per latent frame after the first (4)."""
        return 2 ** sum(self.temporal_downsample)

    @property
    def stationary_latent(self) -> int:
        """First latent index that no longer sees pixel frame 0 (29 for Wan 2.1).

        Follows the last frame that frame 0 can reach through the encoder: a causal convolution
        carries it two frames on, and output `j` of a strided one covers frames `2j-2 .. 2j`.
        """
        carry = CAUSAL_TAPS - 1
        block = 2 * carry
        reach = carry
        for level in range(len(self.dim_mult)):
            reach += block * self.num_res_blocks
            if level < len(self.temporal_downsample) and self.temporal_downsample[level]:
                reach = reach // 2 + 1
        return reach + 2 * block + carry + 1


class UMT5Params(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture of the UMT5 encoder (XXL: vocab 256384, dim 4096, 24 layers of 64 heads)."""

    vocab: int
    dim: int
    dim_attn: int
    dim_ffn: int
    num_heads: int
    num_layers: int
    num_buckets: int
    max_distance: int
    eps: float

    def __post_init__(self) -> None:
        if self.dim_attn % self.num_heads:
            raise ConfigError(
                "attention width does not split into heads",
                expected="dim_attn divisible by num_heads",
                got=f"dim_attn {self.dim_attn}, num_heads {self.num_heads}",
            )


class TinyDecoderParams(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture of the preview decoder.

    `widths` holds the channels at 8, 4, 2 and 1 pixels per cell; `doubles` says after which of the
    first three levels the frames are doubled.
    """

    latent_channels: int
    widths: tuple[int, int, int, int]
    doubles: tuple[bool, bool, bool]
