"""The Wan 2.1 VAE: video to latents and back, whole or as a stream.

`encode_stream` and `decode_stream` take the history of the stream and return the next; None starts
a clip. The first latent frame stands for one pixel frame and each later one for four, and frames
are worked on in exactly these groups, so every chunking of a stream gives the same values as the
whole and memory does not grow with its length. Inputs come in any float dtype, the network computes
in the dtype of its weights, and results have the dtype of the input. With `columns`, inputs,
results and history are one rank's columns of the picture.

Parameter names are those of the published `Wan2.1_VAE.pth`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.core.errors import ShapeError
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.vae_blocks import (
    CausalConv,
    ChannelNorm,
    Downsample,
    FrameAttention,
    PointConv,
    ResidualBlock,
    Upsample,
)
from worldline.models.wan.vae_state import History, Tape, VaeState
from worldline.ops.halo import LENT, Columns, Part

PIXEL_CHANNELS = 3


def _middle(width: int) -> nn.ModuleList:
    return nn.ModuleList(
        [ResidualBlock(width, width), FrameAttention(width), ResidualBlock(width, width)]
    )


def _head(width_in: int, width_out: int) -> nn.ModuleDict:
    # "1" is the activation in the published names.
    return nn.ModuleDict({"0": ChannelNorm(width_in), "2": CausalConv(width_in, width_out)})


class Encoder(nn.Module):
    """Pixel frames to mean and log-variance of the latents, before the last linear map."""

    def __init__(self, params: WanVAEParams) -> None:
        super().__init__()
        widths = [params.dim * m for m in params.dim_mult]
        self.conv1 = CausalConv(PIXEL_CHANNELS, params.dim)
        self.downsamples = nn.ModuleList()
        width = params.dim
        for level, width_out in enumerate(widths):
            for _ in range(params.num_res_blocks):
                self.downsamples.append(ResidualBlock(width, width_out))
                width = width_out
            if level < len(params.temporal_downsample):
                self.downsamples.append(Downsample(width, params.temporal_downsample[level]))
        self.middle = _middle(width)
        self.head = _head(width, 2 * params.z_dim)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Map `x [B, 3, 1|4, H, W]` to `[B, 2·z, 1, h, w]`."""
        x = self.conv1(x, tape)  # B C F H W
        for block in [*self.downsamples, *self.middle]:
            x = block(x, tape)
        return self.head["2"](F.silu(self.head["0"](x)), tape)  # B 2z 1 h w


class Decoder(nn.Module):
    """One latent frame to its pixel frames: one for the first of a clip, then four."""

    def __init__(self, params: WanVAEParams) -> None:
        super().__init__()
        widths = [params.dim * m for m in reversed(params.dim_mult)]
        doubles = params.temporal_downsample[::-1]
        width = widths[0]
        self.conv1 = CausalConv(params.z_dim, width)
        self.middle = _middle(width)
        self.upsamples = nn.ModuleList()
        for level, width_out in enumerate(widths):
            for _ in range(params.num_res_blocks + 1):
                self.upsamples.append(ResidualBlock(width, width_out))
                width = width_out
            if level < len(doubles):
                self.upsamples.append(Upsample(width, doubles[level]))
                width //= 2
        self.head = _head(width, PIXEL_CHANNELS)

    def forward(self, z: Tensor, tape: Tape) -> Tensor:
        """Map `z [B, z, 1, h, w]` to `[B, 3, 1|4, H, W]`, not clamped."""
        x = self.conv1(z, tape)  # B C 1 h w
        for block in [*self.middle, *self.upsamples]:
            x = block(x, tape)
        return self.head["2"](F.silu(self.head["0"](x)), tape)  # B 3 F H W


class WanVAE(nn.Module):
    """The Wan 2.1 autoencoder; holds weights only, history is passed in and out.

    `stationary_latent` is the index from which `encode([image, zeros, ...])` no longer changes, so
    that latent may be repeated instead of encoding more zeros (29: encode 117 pixel frames).
    """

    frame_by_frame = True
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, params: WanVAEParams) -> None:
        super().__init__()
        self.params = params
        self.stationary_latent = params.stationary_latent
        self.encoder = Encoder(params)
        self.conv1 = PointConv(2 * params.z_dim, 2 * params.z_dim)
        self.conv2 = PointConv(params.z_dim, params.z_dim)
        self.decoder = Decoder(params)
        self._set_statistics(torch.device("cpu"))

    def encode(self, video: Tensor) -> Tensor:
        """Encode a whole clip `video [B, 3, 1+4k, H, W]` to `[B, z, 1+k, h, w]`."""
        return self.encode_stream(video, None)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode a whole clip `latents [B, z, 1+k, h, w]` to `[B, 3, 1+4k, H, W]` in [-1, 1]."""
        return self.decode_stream(latents, None)[0]

    def encode_stream(
        self, video: Tensor, state: VaeState | None, *, columns: Columns | None = None
    ) -> tuple[Tensor, VaeState]:
        """Encode the next frames of a clip to normalised latents.

        `video [B, 3, F, H, W]` in [-1, 1]. With `state` None a clip starts: `F = 1+4k` gives `1+k`
        latents; otherwise `F = 4k` gives `k`. The mean of the posterior is returned, never a
        sample. Raises ShapeError for any other shape or a state of other sizes.
        """
        self._check_video(video, state)
        stride = self.params.time_stride
        slots = _slots(video, state, "encode", columns)
        x = video.to(self.conv1.weight.dtype)
        first = [1] if state is None else []
        groups = first + [stride] * ((x.shape[2] - len(first)) // stride)
        latents: list[Tensor] = []
        tape = Tape(slots, columns)
        for group in x.split(groups, dim=2):
            if latents:
                tape.rewind()
            latents.append(self._encode_group(group, tape))
        slots = tape.finish()
        seen = len(latents) + (0 if state is None else state.latents)
        after = VaeState("encode", seen, slots, _part(columns))
        return torch.cat(latents, 2).to(video.dtype), after

    def decode_stream(
        self,
        latents: Tensor,
        state: VaeState | None,
        *,
        clamp: bool = True,
        columns: Columns | None = None,
    ) -> tuple[Tensor, VaeState]:
        """Decode the next latent frames of a clip to pixels, clamped to [-1, 1] unless told not to.

        `latents [B, z, f, h, w]`, normalised. The first latent frame of a clip (`state` None) gives
        one pixel frame and each later one four. Raises ShapeError for any other shape or a state
        of other sizes.
        """
        self._check_latents(latents)
        slots = _slots(latents, state, "decode", columns)
        std, mean = self.latent_std.to(latents.device), self.latent_mean.to(latents.device)
        z = (_widen(latents) * std + mean).to(self.conv2.weight.dtype)  # B z f h w
        z = self.conv2(z)
        frames: list[Tensor] = []
        # One latent frame at a time: later layers hold four times its frames at 64 times its area.
        tape = Tape(slots, columns)
        for frame in z.split(1, dim=2):
            if frames:
                tape.rewind()
            frames.append(self.decoder(frame, tape))  # B 3 1|4 H W
        slots = tape.finish()
        seen = len(frames) + (0 if state is None else state.latents)
        video = torch.cat(frames, 2).to(latents.dtype)  # B 3 F H W
        after = VaeState("decode", seen, slots, _part(columns))
        return video.clamp(-1, 1) if clamp else video, after

    def _encode_group(self, x: Tensor, tape: Tape) -> Tensor:
        moments = self.conv1(self.encoder(x, tape))  # B 2z 1 h w
        mu = _widen(moments[:, : self.params.z_dim])  # B z 1 h w
        std, mean = self.latent_std.to(x.device), self.latent_mean.to(x.device)
        return (mu - mean) / std

    def _set_statistics(self, device: torch.device) -> None:
        shape = (1, self.params.z_dim, 1, 1, 1)
        for name, values in (("latent_mean", self.params.mean), ("latent_std", self.params.std)):
            value = torch.tensor(values, dtype=torch.float32, device=device).view(shape)
            self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # NOTE the statistics come from the params, not from a checkpoint: `to(bfloat16)` would
        # round them and `to_empty` would leave them unset, so they are written again afterwards.
        super()._apply(fn, recurse)
        self._set_statistics(self.latent_mean.device)
        return self

    def _check_video(self, video: Tensor, state: VaeState | None) -> None:
        stride, cell = self.params.time_stride, self.params.space_stride
        rest = 1 if state is None else 0
        fits = (
            video.ndim == 5
            and video.shape[1] == PIXEL_CHANNELS
            and video.shape[2] % stride == rest
            and all(size > 0 for size in video.shape)
            and all(size % cell == 0 for size in video.shape[3:])
        )
        if not fits:
            raise ShapeError(
                "video does not fit the VAE",
                expected=f"[B, 3, {rest}+{stride}k, {cell}·h, {cell}·w], none of them 0",
                got=list(video.shape),
            )

    def _check_latents(self, latents: Tensor) -> None:
        fits = latents.ndim == 5 and latents.shape[1] == self.params.z_dim
        if not fits or not all(size > 0 for size in latents.shape):
            raise ShapeError(
                "latents do not fit the VAE",
                expected=f"[B, {self.params.z_dim}, f, h, w], none of them 0",
                got=list(latents.shape),
            )


def _widen(x: Tensor) -> Tensor:
    """Float32 or wider: the latent statistics are applied in full precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _part(columns: Columns | None) -> Part | None:
    return None if columns is None else columns.part


def _slots(x: Tensor, state: VaeState | None, direction: str, columns: Columns | None) -> History:
    """History to start from; checks that it belongs to a stream of this direction and size."""
    if state is None:
        return ()
    assert state.direction == direction, f"{state.direction} state given to {direction}"
    if state.part != _part(columns):
        raise ShapeError("history of other columns", expected=_part(columns), got=state.part)
    slot = state.slots[0]
    assert slot is not None
    ours = [x.shape[0], x.shape[3], x.shape[4] + (0 if columns is None else LENT)]
    theirs = [slot.shape[0], *slot.shape[3:]]
    if ours != theirs:
        raise ShapeError("stream changed its size", expected=theirs, got=ours)
    return state.slots
