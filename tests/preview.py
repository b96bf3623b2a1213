"""A small preview decoder with seeded random weights."""

from __future__ import annotations

import torch

from worldline.models.wan.params import TinyDecoderParams
from worldline.models.wan.tiny import TinyDecoder

SMALL = TinyDecoderParams(latent_channels=16, widths=(12, 10, 8, 6), doubles=(False, True, True))


def random_decoder(params: TinyDecoderParams = SMALL) -> TinyDecoder:
    """Weights of a size that keeps pixels inside [0, 1] varied."""
    decoder = TinyDecoder(params)
    generator = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 9
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return decoder.requires_grad_(False).eval()
