"""FLOPs of the autoencoder's decoder: counted on the meta device, where nothing is computed.

The network itself is asked, operation by operation, so it is right for every autoencoder.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from worldline.models.preset import Preset
from worldline.models.presets import TAEW2_1
from worldline.models.wan.tiny import PreviewVae, TinyDecoder
from worldline.ops.vae import StreamingVae
from worldline.runtime.parts import build_networks, on_meta

LATENT_CHANNELS = 16


@torch.no_grad()
def decode_flops(preset: Preset, chunk: int, grid: tuple[int, int], *, tiny: bool = False) -> int:
    """FLOPs of decoding `chunk` latent frames of `grid` `(h, w)` in the middle of a clip.

    `tiny` counts the preview decoder.
    """
    latents = torch.empty(1, LATENT_CHANNELS, chunk, *grid, device="meta")
    vae = build_networks(preset).vae
    return _counted(PreviewVae(vae, on_meta(TinyDecoder, TAEW2_1)) if tiny else vae, latents)


def _counted(vae: StreamingVae, latents: Tensor) -> int:
    _, state = vae.decode_stream(latents, None)
    with FlopCounterMode(display=False) as counter:
        vae.decode_stream(latents, state)
    return int(counter.get_total_flops())
