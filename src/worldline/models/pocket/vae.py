"""The pocket autoencoder: 4x8x8, causal, all `conv2d`, behind the same protocol as Wan's.

Four pixel frames are folded into channels, so one latent frame is one image of 12 channels; the
first latent frame of a clip is its one frame four times, and decodes to the mean of four. A frozen
whitened PCA of 8x8x4 blocks carries the picture, convolutions learn what it misses (facts:
pocket_vae). The encoder has no memory: a latent frame depends on its own pixels only. The decoder
sees the latent before and a quarter of each block's features one latent earlier: that is its whole
state, passed in and returned, never kept on the module. With `columns`, inputs, results and
state are one rank's columns of the picture.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.core.errors import ShapeError
from worldline.models.pocket.params import PocketVAEParams
from worldline.ops.halo import LENT, Columns, Part

STRIDE = 8  # pixels per latent cell
FOLD = 4  # pixel frames per latent frame
_EPS = 1e-4


class PocketVAEState(NamedTuple):
    """What a stream remembers between calls: the decoder's tensors (none for an encoder).

    Of a picture cut among ranks they are those of `part`, with the neighbours' columns beside it.
    """

    tensors: tuple[Tensor, ...]
    part: Part | None = None

    def clone(self) -> PocketVAEState:
        """An independent copy, for branching a stream."""
        return PocketVAEState(tuple(t.clone() for t in self.tensors), self.part)


class ResBlock(nn.Module):
    """Two 3x3 convolutions on RMS-normed features; `temporal` adds C/4 features of the past."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.past = channels // 4 if temporal else 0
        self.gain = nn.Parameter(torch.ones(channels))
        self.conv1 = nn.Conv2d(channels + self.past, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # the network starts as the plain PCA codec
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(
        self, x: Tensor, *, steps: int, past: Tensor | None, columns: Columns | None = None
    ) -> tuple[Tensor, Tensor]:
        """`x` is `[B·T, C, h, w]` with T = `steps`; returns it changed, and the new past."""
        n = _widen(F.silu(_rms(x, self.gain)), columns)
        last = n
        if self.past:
            n, last = _with_past(n, n[:, : self.past], steps, past)  # B·T C+C/4 h w
        n = F.silu(_conv(self.conv1, n, columns))
        return x + _conv(self.conv2, _widen(n, columns), columns), last


class PocketVAE(nn.Module):
    """See the module's contract. Pixels are in [-1, 1]; latents are normalised per channel."""

    # encode([image, grey, grey, ...]) is constant from this latent index on: no memory, so 1
    stationary_latent = 1
    frame_by_frame = False  # latent frames are a batch, and convolutions sum batches differently

    pca: Tensor
    pca_bias: Tensor
    pca_inverse: Tensor
    pca_mean: Tensor
    scale: Tensor

    def __init__(self, params: PocketVAEParams) -> None:
        super().__init__()
        self.params = params
        z, (e4, e8), (d8, d4, d2) = params.latent_channels, params.encoder, params.decoder
        pixels = 3 * FOLD
        block = pixels * STRIDE * STRIDE
        # PCA as buffers: a gradient step of ordinary size would destroy its small numbers
        self.register_buffer("pca", torch.zeros(z, pixels, STRIDE, STRIDE))
        self.register_buffer("pca_bias", torch.zeros(z))
        self.register_buffer("pca_inverse", torch.zeros(block, z, 1, 1))
        self.register_buffer("pca_mean", torch.zeros(block))
        self.register_buffer("scale", torch.ones(z))

        self.enc_in = nn.Conv2d(pixels * 16, e4, 3, padding=1)
        self.enc_high = ResBlock(e4, temporal=False)
        self.enc_down = nn.Conv2d(e4 * 4, e8, 1)
        self.enc_low = nn.ModuleList(ResBlock(e8, temporal=False) for _ in range(params.blocks))
        self.enc_gain = nn.Parameter(torch.ones(e8))
        self.enc_out = nn.Conv2d(e8, z, 3, padding=1)

        self.dec_in = nn.Conv2d(2 * z, d8, 3, padding=1)
        self.dec_low = nn.ModuleList(ResBlock(d8, temporal=True) for _ in range(params.blocks))
        self.dec_base = nn.Conv2d(d8, block, 1)
        self.dec_up4 = nn.Conv2d(d8, d4 * 4, 1)
        self.dec_mid = nn.ModuleList(ResBlock(d4, temporal=True) for _ in range(params.blocks))
        self.dec_up2 = nn.Conv2d(d4, d2 * 4, 1)
        self.dec_see = nn.Conv2d(pixels * 4, d2, 1)
        self.dec_high = nn.ModuleList(ResBlock(d2, temporal=True) for _ in range(params.blocks))
        self.dec_gain = nn.Parameter(torch.ones(d2))
        self.dec_out = nn.Conv2d(d2, pixels * 4, 3, padding=1)
        for layer in (self.enc_out, self.dec_base, self.dec_out):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def encode_stream(
        self, video: Tensor, state: PocketVAEState | None, *, columns: Columns | None = None
    ) -> tuple[Tensor, PocketVAEState]:
        """Latents of `video` `[B, 3, F, H, W]`: F = 1+4k at a clip's start, else 4k.

        Returns `[B, 16, T, H/8, W/8]` and the state. Raises `ShapeError`.
        """
        if video.ndim != 5 or video.shape[1] != 3 or video.shape[3] % 8 or video.shape[4] % 8:
            expected = "[B, 3, F, H, W], H and W multiples of 8"
            raise ShapeError("cannot encode this video", expected=expected, got=list(video.shape))
        lead = 1 if state is None else 0
        if video.shape[2] % FOLD != lead or video.shape[2] == 0:
            expected = "1 + 4k frames at the start of a clip, 4k later"
            raise ShapeError("cannot encode this video", expected=expected, got=video.shape[2])
        x = video.transpose(1, 2).to(self.pca.dtype)  # B F 3 H W
        if lead:
            x = torch.cat([x[:, :1].expand(-1, FOLD - 1, -1, -1, -1), x], dim=1)
        x = x.unflatten(1, (-1, FOLD)).flatten(2, 3)  # B T 12 H W
        z = self.encode_folded(x.flatten(0, 1), columns).unflatten(0, x.shape[:2])  # B T 16 h w
        return z.transpose(1, 2).to(video.dtype), PocketVAEState((), _part(columns))

    def decode_stream(
        self, latents: Tensor, state: PocketVAEState | None, *, columns: Columns | None = None
    ) -> tuple[Tensor, PocketVAEState]:
        """Pixels of `latents` `[B, 16, T, h, w]`, clamped to [-1, 1]: `[B, 3, F, H, W]`.

        F = 4T, or 1 + 4(T-1) at the start of a clip (`state` None). Raises `ShapeError`.
        """
        channels = self.params.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels or latents.shape[2] == 0:
            expected = f"[B, {channels}, T, h, w]"
            raise ShapeError(
                "cannot decode these latents", expected=expected, got=list(latents.shape)
            )
        z = latents.transpose(1, 2).to(self.pca.dtype)  # B T 16 h w
        x, tensors = self.decode_folded(z, _past(z, state, columns), columns)
        x = x.unflatten(2, (FOLD, 3))  # B T 4 3 H W
        video = x.flatten(1, 2)  # B F 3 H W
        if state is None:
            video = torch.cat([x[:, 0].mean(1, keepdim=True), video[:, FOLD:]], dim=1)
        video = video.transpose(1, 2).clamp(-1, 1).to(latents.dtype)
        return video, PocketVAEState(tensors, _part(columns))

    def encode(self, video: Tensor) -> Tensor:
        """Whole-clip form of `encode_stream`, F = 1 + 4k."""
        return self.encode_stream(video, None)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Whole-clip form of `decode_stream`."""
        return self.decode_stream(latents, None)[0]

    def encode_folded(self, x: Tensor, columns: Columns | None = None) -> Tensor:
        """Latents `[N, 16, h, w]` of folded frames `[N, 12, H, W]`; the trainer calls it too."""
        base = F.conv2d(x, self.pca, self.pca_bias, stride=STRIDE)  # N 16 h w
        h = _conv(self.enc_in, _widen(F.pixel_unshuffle(x, 4), columns), columns)  # N C H/4 W/4
        h, _ = self.enc_high(h, steps=1, past=None, columns=columns)
        h = self.enc_down(F.pixel_unshuffle(h, 2))  # N C h w
        for block in self.enc_low:
            h, _ = block(h, steps=1, past=None, columns=columns)
        h = _widen(F.silu(_rms(h, self.enc_gain)), columns)
        rest = _conv(self.enc_out, h, columns)
        return (base + rest) * self.scale[:, None, None]

    def decode_folded(
        self, z: Tensor, past: tuple[Tensor, ...] | None, columns: Columns | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Unclamped folded frames `[B, T, 12, H, W]` of `z` `[B, T, 16, h, w]`, and the state."""
        steps = z.shape[1]
        count = 1 + 3 * self.params.blocks
        old: list[Tensor | None] = [None] * count if past is None else list(past)
        new: list[Tensor] = []
        flat = (z / self.scale[:, None, None]).flatten(0, 1)  # B·T 16 h w
        wide = _widen(flat, columns)
        both, last = _with_past(wide, wide, steps, old[0])
        new.append(last)
        level = partial(_level, steps=steps, old=old, new=new, columns=columns)
        h = level(_conv(self.dec_in, both, columns), self.dec_low)  # B·T C h w
        base = F.conv2d(flat, self.pca_inverse, self.pca_mean) + self.dec_base(h)
        base = F.pixel_shuffle(base, 4)  # B·T 48 H/2 W/2
        h = F.pixel_shuffle(self.dec_up4(h), 2)  # B·T C H/4 W/4
        h = level(h, self.dec_mid)
        # the fine level sees the blocky picture, so it can deblock from the first step
        h = F.pixel_shuffle(self.dec_up2(h), 2) + self.dec_see(base)  # B·T C H/2 W/2
        h = level(h, self.dec_high)
        h = _widen(F.silu(_rms(h, self.dec_gain)), columns)
        x = base + _conv(self.dec_out, h, columns)
        x = F.pixel_shuffle(x, 2)  # B·T 12 H W
        return x.unflatten(0, (-1, steps)), tuple(new)


def _level(
    h: Tensor,
    blocks: nn.ModuleList,
    *,
    steps: int,
    old: list[Tensor | None],
    new: list[Tensor],
    columns: Columns | None,
) -> Tensor:
    for block in blocks:
        h, last = block(h, steps=steps, past=old[len(new)], columns=columns)
        new.append(last)
    return h


def _part(columns: Columns | None) -> Part | None:
    return None if columns is None else columns.part


def _past(
    z: Tensor, state: PocketVAEState | None, columns: Columns | None
) -> tuple[Tensor, ...] | None:
    """What `state` remembers; it must be of the columns and the size of `z [B, T, C, h, w]`."""
    if state is None:
        return None
    if state.part != _part(columns):
        raise ShapeError("history of other columns", expected=_part(columns), got=state.part)
    theirs = [state.tensors[0].shape[0], *state.tensors[0].shape[-2:]]
    ours = [z.shape[0], z.shape[-2], z.shape[-1] + (0 if columns is None else LENT)]
    if ours != theirs:
        raise ShapeError("stream changed its size", expected=theirs, got=ours)
    return state.tensors


def _widen(x: Tensor, columns: Columns | None) -> Tensor:
    return x if columns is None else columns.widen(x)


def _conv(layer: nn.Conv2d, x: Tensor, columns: Columns | None) -> Tensor:
    """A 3x3 convolution of what `_widen` returned; zeros only where no neighbour lent a column."""
    if columns is None:
        return layer(x)
    return F.conv2d(x, layer.weight, layer.bias, padding=(1, 0))


def _rms(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm over the channels of `[N, C, h, w]`."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPS) * gain[:, None, None]


def _with_past(x: Tensor, part: Tensor, steps: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Append to `x` `[B·T, C, h, w]` the features `part` of one latent earlier (start: zeros)."""
    own = part.unflatten(0, (-1, steps))  # B T C' h w
    first = torch.zeros_like(own[:, 0]) if past is None else past
    earlier = torch.cat([first[:, None], own[:, :-1]], dim=1).flatten(0, 1)  # B·T C' h w
    return torch.cat([x, earlier], dim=1), own[:, -1]
