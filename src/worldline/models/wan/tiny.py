"""The tiny preview decoder for latents of the Wan 2.1 VAE, in the layout of TAEHV (`taew2_1`).

About 10 M weights, 2-D convolutions only. What a block of convolutions knows of the past is its own
input one frame earlier: that is the whole state, passed in and returned. Latents enter as the
transformer makes them, without statistics; inside, pixels are in [0, 1]. The first latent frame of
a clip unfolds to four frames like any other, of which the last is the picture.

Parameter names are those of the published `taew2_1` files (MIT); its encoder is not used. Latent
frames are worked on one at a time, so every chunking of a stream gives the same values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.core.errors import ShapeError
from worldline.models.wan.params import TinyDecoderParams
from worldline.ops.vae import StreamingVae, StreamState

FOLD = 4  # pixel frames per latent frame
BLOCKS = 3  # memory blocks per level
BOUND = 3.0  # latents are softly limited to this
FILE_NAMES = ("taew2_1.safetensors", "taew2_1.pth")


class TinyState(NamedTuple):
    """The last input `[B, C, h, w]` of every memory block, in running order."""

    past: tuple[Tensor, ...]

    def clone(self) -> TinyState:
        """A copy with tensors of its own."""
        return TinyState(tuple(t.clone() for t in self.past))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.nbytes for t in self.past)


class MemoryBlock(nn.Module):
    """Three convolutions over a frame and the frame before, added to the frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The numbers between are the activations in the published names.
        self.conv = nn.ModuleDict({"0": _conv(2 * width, width)})
        self.conv["2"] = _conv(width, width)
        self.conv["4"] = _conv(width, width)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map frames `x [F, C, h, w]` that follow `past [1, C, h, w]`; returns the next past."""
        first = torch.zeros_like(x[:1]) if past is None else past
        earlier = torch.cat([first, x[:-1]])  # F C h w
        y = F.relu(self.conv["0"](torch.cat([x, earlier], dim=1)))
        y = self.conv["4"](F.relu(self.conv["2"](y)))
        # A copy: a view would keep all frames of the chunk alive until the next one.
        return F.relu(y + x), x[-1:].clone()


class Grow(nn.Module):
    """Each frame becomes `times` frames by a linear map at each pixel."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [F, C, h, w]` to `[F·times, C, h, w]`."""
        return self.conv(x).unflatten(1, (self.times, -1)).flatten(0, 1)


class TinyDecoder(nn.Module):
    """See the module's contract; only `decode_stream` of a `StreamingVae`."""

    def __init__(self, params: TinyDecoderParams) -> None:
        super().__init__()
        self.params = params
        layers: dict[str, nn.Module] = {"1": _conv(params.latent_channels, params.widths[0])}
        place = 3
        for level, (width, after) in enumerate(zip(params.widths, params.widths[1:], strict=False)):
            for i in range(BLOCKS):
                layers[str(place + i)] = MemoryBlock(width)
            # Between blocks and growth the published numbering counts the enlargement.
            layers[str(place + BLOCKS + 1)] = Grow(width, 2 if params.doubles[level] else 1)
            layers[str(place + BLOCKS + 2)] = _conv(width, after, bias=False)
            place += BLOCKS + 3
        layers[str(place + 1)] = _conv(params.widths[-1], 3)
        self.decoder = nn.ModuleDict(layers)

    def decode_stream(self, latents: Tensor, state: TinyState | None) -> tuple[Tensor, TinyState]:
        """Latents `[B, 16, T, h, w]` -> video `[B, 3, F, H, W]` in [-1, 1] and the next state.

        F = 4T, or 1 + 4(T-1) at the start of a clip (`state` None). Raises `ShapeError`.
        """
        self._check(latents, state)
        clips = [
            self._decode_clip(clip, None if state is None else [t[i : i + 1] for t in state.past])
            for i, clip in enumerate(latents)
        ]
        video = torch.stack([video for video, _ in clips]).transpose(1, 2)  # B 3 F H W
        past = tuple(torch.cat(each) for each in zip(*(past for _, past in clips), strict=True))
        return video.to(latents.dtype), TinyState(past)

    def _decode_clip(
        self, latents: Tensor, past: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """One clip `[16, T, h, w]` to frames `[F, 3, H, W]`."""
        frames: list[Tensor] = []
        for latent in latents.unbind(1):
            first = past is None
            pixels, past = self._decode_latent(latent[None], past)  # 4 3 H W
            frames.append(pixels[FOLD - 1 :] if first else pixels)
        assert past is not None, "there is at least one latent frame"
        return torch.cat(frames).clamp(0, 1).mul(2).sub(1), past

    def _decode_latent(self, z: Tensor, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """`z [1, 16, h, w]` to four frames `[4, 3, H, W]`, not yet limited, and the next past."""
        new: list[Tensor] = []
        x = torch.tanh(z.to(next(self.parameters()).dtype) / BOUND) * BOUND
        x = F.relu(self.decoder["1"](x))
        for layer in list(self.decoder.values())[1:-1]:
            if isinstance(layer, MemoryBlock):
                x, last = layer(x, None if past is None else past[len(new)])
                new.append(last)
            elif isinstance(layer, Grow):
                # Growing first gives the same: a map of each pixel does not see the enlargement.
                x = F.interpolate(layer(x), scale_factor=2, mode="nearest")
            else:
                x = layer(x)
        return list(self.decoder.values())[-1](F.relu(x)), new

    def _check(self, latents: Tensor, state: TinyState | None) -> None:
        channels = self.params.latent_channels
        fits = latents.ndim == 5 and latents.shape[1] == channels and latents.numel() > 0
        if not fits:
            raise ShapeError(
                "latents do not fit the preview decoder",
                expected=f"[B, {channels}, T, h, w], none of them 0",
                got=list(latents.shape),
            )
        if state is not None:
            held = [state.past[0].shape[0], *state.past[0].shape[2:]]
            asked = [latents.shape[0], *latents.shape[3:]]
            if held != asked:
                raise ShapeError("stream changed its size", expected=held, got=asked)


class PreviewVae:
    """A `StreamingVae` that encodes with the full autoencoder and decodes with the tiny one."""

    frame_by_frame = True

    def __init__(self, full: StreamingVae, tiny: TinyDecoder) -> None:
        self.full = full
        self.tiny = tiny

    @property
    def stationary_latent(self) -> int:
        """That of the full autoencoder."""
        return self.full.stationary_latent

    def encode_stream(self, video: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See the full autoencoder."""
        return self.full.encode_stream(video, state)

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See `TinyDecoder`."""
        return self.tiny.decode_stream(latents, state)


def decoder_only(name: str) -> str | None:
    """The published name of a tensor, None for those of the encoder."""
    return None if name.startswith("encoder.") else name


def _conv(width_in: int, width_out: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, padding=1, bias=bias)
