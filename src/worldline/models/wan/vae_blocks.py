"""Blocks of the Wan 2.1 VAE under the parameter names of the published `Wan2.1_VAE.pth`.

All take `x [B, C, F, H, W]` and a `Tape`; the memory of a stream is on the tape, never on a module.
Convolutions over time read their past from the tape, so any chunking gives what the whole gives.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.wan.params import CAUSAL_TAPS
from worldline.models.wan.vae_state import Tape


def temporal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, *, beside: int | None = None
) -> Tensor:
    """Convolve `x [B, I, F, H, W]` with `weight [O, I, kt, kh, kw]`, unpadded in time.

    Height and width keep their size, or so many columns of zeros are put `beside` the picture at
    either side instead; `stride` is the step in time. On a CPU the taps in time are
    stacked as channels and run as a 2-D convolution: float32 `conv3d` there is 20 to 50 times
    slower at widths like 16, 32 and 96.
    """
    pad = (weight.shape[3] // 2, weight.shape[4] // 2 if beside is None else beside)
    if x.device.type != "cpu":
        return F.conv3d(x, weight, bias, stride=(stride, 1, 1), padding=(0, *pad))
    taps = x.unfold(2, weight.shape[2], stride)  # B I F H W kt
    batch, _, frames = taps.shape[:3]
    taps = taps.permute(0, 2, 5, 1, 3, 4).flatten(0, 1).flatten(1, 2)  # B·F kt·I H W
    flat = weight.transpose(1, 2).flatten(1, 2)  # O kt·I kh kw
    out = F.conv2d(taps, flat, bias, padding=pad)  # B·F O H W
    return out.unflatten(0, (batch, frames)).transpose(1, 2)  # B O F H W


def to_frames(x: Tensor) -> Tensor:
    """Put the frames of `x [B, C, F, H, W]` in the batch: `[B·F, C, H, W]`."""
    return x.transpose(1, 2).flatten(0, 1)  # B·F C H W


def from_frames(x: Tensor, batch: int) -> Tensor:
    """Undo `to_frames`."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)  # B C F H W


class _Kernel(nn.Module):
    """Weight `[O, I, kt, kh, kw]` and bias `[O]` of a convolution."""

    def __init__(self, width_in: int, width_out: int, *, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in, *kernel))
        self.bias = nn.Parameter(torch.empty(width_out))
        bound = 1 / math.sqrt(width_in * math.prod(kernel))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)


class CausalConv(_Kernel):
    """Convolution over three frames and 3x3 pixels that never looks ahead."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, kernel=(CAUSAL_TAPS, 3, 3))

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Map `x [B, I, F, H, W]` to `[B, O, F, H, W]`."""
        if tape.columns is None:
            return temporal_conv(tape.splice(x), self.weight, self.bias)
        return temporal_conv(tape.widen(x), self.weight, self.bias, beside=0)


class TimeConv(_Kernel):
    """Convolution over three frames at each pixel; the resamplers give it its history."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, kernel=(CAUSAL_TAPS, 1, 1))

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Map `x [B, I, F, H, W]` to `[B, O, (F-3)/stride+1, H, W]`."""
        return temporal_conv(x, self.weight, self.bias, stride)


class PointConv(_Kernel):
    """Linear map of the channels at each pixel."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, kernel=(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [B, I, F, H, W]` to `[B, O, F, H, W]`."""
        return temporal_conv(x, self.weight, self.bias)


class ChannelNorm(nn.Module):
    """Scale every pixel's channel vector to length `sqrt(C)`, times a learned gain.

    `dims` is the number of trailing ones in the shape of the gain: 3 for video, 2 for pictures.
    """

    def __init__(self, width: int, dims: int = 3) -> None:
        super().__init__()
        self.scale = math.sqrt(width)
        self.gamma = nn.Parameter(torch.ones(width, *([1] * dims)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x [B, C, ...]`; lengths are summed in float32 or wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
        return x * (self.scale / length.clamp_min(1e-12)).to(x.dtype) * self.gamma


class ResidualBlock(nn.Module):
    """Two normed, activated causal convolutions beside a shortcut."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        # The published names count the activations and the dropout between the layers.
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(width_in),
                "2": CausalConv(width_in, width_out),
                "3": ChannelNorm(width_out),
                "6": CausalConv(width_out, width_out),
            }
        )
        same = width_in == width_out
        self.shortcut = nn.Identity() if same else PointConv(width_in, width_out)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Map `x [B, I, F, H, W]` to `[B, O, F, H, W]`."""
        h = self.residual["2"](F.silu(self.residual["0"](x)), tape)  # B O F H W
        h = self.residual["6"](F.silu(self.residual["3"](h)), tape)
        return self.shortcut(x) + h


class FrameAttention(nn.Module):
    """Single-head attention among the cells of one frame; frames do not see each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, dims=2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Attend within each frame of `x [B, C, F, H, W]`; the shape stays.

        Of a picture cut among ranks, each asks for its own cells and sees those of all.
        """
        frames = to_frames(x)  # B·F C H W
        qkv = self.to_qkv(self.norm(frames))  # B·F 3C H W
        if tape.columns is None:
            # Contiguous: fused kernels want the channels of a cell side by side.
            q, k, v = _cells(qkv).contiguous().chunk(3, dim=-1)  # B·F 1 H·W C
        else:
            own, others = qkv.split([frames.shape[1], 2 * frames.shape[1]], dim=1)
            q = _cells(own).contiguous()
            k, v = _cells(tape.columns.all(others, name="vae cells")).contiguous().chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)  # B·F C H·W
        out = self.proj(out.unflatten(2, frames.shape[2:]))  # B·F C H W
        return x + from_frames(out, x.shape[0])


def _cells(x: Tensor) -> Tensor:
    """The cells of `x [N, C, H, W]` as a sequence of one head: `[N, 1, H·W, C]`."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


class Downsample(nn.Module):
    """Halve height and width; halve the frames too when `temporal`, all but the first."""

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)
        )
        self.time_conv = TimeConv(width, width) if temporal else None

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Map `x [B, C, F, H, W]` to `[B, C, F or F/2, H/2, W/2]`; a first frame stays one."""
        x = from_frames(self._halve(to_frames(x), tape), x.shape[0])  # B C F H/2 W/2
        if self.time_conv is None:
            return x
        if tape.first:
            tape.record(x[:, :, -1:].clone())
            return x
        return self.time_conv(tape.splice(x, keep=1), stride=2)  # B C F/2 H/2 W/2

    def _halve(self, frames: Tensor, tape: Tape) -> Tensor:
        if tape.columns is None:
            return self.resample(frames)
        _, conv = self.resample
        return conv(F.pad(tape.columns.widen_right(frames), (0, 0, 0, 1)))


class Upsample(nn.Module):
    """Double height and width and halve the width `C`; double the frames first when `temporal`.

    The first latent frame of a clip is not doubled, and the history of the second begins with
    zeros rather than with the first: the published decoder does so, and the weights expect it.
    """

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"),
            nn.Conv2d(width, width // 2, 3, padding=1),
        )
        self.time_conv = TimeConv(width, 2 * width) if temporal else None

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Map `x [B, C, F, H, W]` to `[B, C/2, F or 2F, 2H, 2W]`."""
        if self.time_conv is not None:
            x = self._double_frames(x, tape, self.time_conv)  # B C 2F H W
        frames = to_frames(x)  # B·F C H W
        if tape.columns is None:
            return from_frames(self.resample(frames), x.shape[0])
        larger, conv = self.resample
        assert isinstance(conv, nn.Conv2d), "see the constructor"
        # A neighbour's column becomes two, of which the convolution sees the nearer one.
        frames = larger(tape.columns.widen(frames))[..., 1:-1]  # B·F C 2H 2W+2
        out = F.conv2d(frames, conv.weight, conv.bias, padding=(1, 0))
        return from_frames(out, x.shape[0])

    def _double_frames(self, x: Tensor, tape: Tape, conv: TimeConv) -> Tensor:
        if tape.first:
            tape.record(None)
            return x
        pairs = conv(tape.splice(x))  # B 2·C F H W
        return pairs.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)  # B C 2F H W
