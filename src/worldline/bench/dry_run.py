"""What a chunk takes for itself, found by running its networks on torch's meta device.

Nothing is computed and no memory is taken: operators only say what they would allocate. So it works
for every model on every machine. A transformer of two blocks says as much as the whole one, because
each gives back what it took.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.bench.census import tensors_in
from worldline.bench.live import DryRun, LivePeak
from worldline.models.lingbot.blocks import CameraModulation
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.vae import StreamingVae

META = torch.device("meta")
LATENT_CHANNELS = 16


class Decoding(NamedTuple):
    """Bytes: `history` stays with a session, `workspace` comes on top while it decodes."""

    history: int
    workspace: int


class Decoder(Protocol):
    """An autoencoder, or its tiny decoder alone."""

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """See `ops.vae.StreamingVae`."""
        ...


class _Fused:
    """Attention that only says what shape its result has."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stands in for the ring, which is counted elsewhere."""
        del layer, k, v
        return torch.empty_like(q)

    def attend(self, query: Tensor) -> Tensor:
        """Stands in for the text."""
        return torch.empty_like(query)


@torch.no_grad()
def passing(dit: LingBotDiT, chunk: int, grid: tuple[int, int]) -> int:
    """Bytes that a denoise pass over `chunk` latent frames of `grid` tokens takes at once.

    `dit` lies on the meta device. Weights, ring, prompt and the camera's tables are not in it.
    """
    params, tokens, blocks = dit.params, chunk * grid[0] * grid[1], dit.params.num_layers
    table = torch.empty(1, tokens, params.dim, dtype=dit.dtype, device=META)  # B L C
    noisy = torch.empty(1, params.in_dim, chunk, 2 * grid[0], 2 * grid[1], device=META)
    fused = _Fused()
    time = dit.time_tables(dit.embed_time(torch.empty(1, device=META)))
    rope = dit.rope(range(chunk), *grid)
    with DryRun(), LivePeak() as live:
        x = dit.run_blocks(
            dit.patchify(noisy),
            time=time,
            rope=rope,
            camera=[CameraModulation(table, table)] * blocks,
            cross=[fused] * blocks,
            attend=fused,
        )
        dit.project(x, time, (chunk, *grid))
    return live.peak + noisy.nbytes


@torch.no_grad()
def decoding(decoder: Decoder, chunk: int, grid: tuple[int, int]) -> Decoding:
    """Decoding `chunk` latent frames of `grid` `(h, w)` in the middle of a clip, on meta tensors.

    The new history is made while the old one is still needed.
    """
    latents = torch.empty(1, LATENT_CHANNELS, chunk, *grid, device=META)
    with DryRun():
        _, state = decoder.decode_stream(latents, None)
        _, state = decoder.decode_stream(latents, state)
        with LivePeak() as live:
            decoder.decode_stream(latents, state)
    return Decoding(_nbytes(state), live.peak)


@torch.no_grad()
def encoding(vae: StreamingVae, chunk: int, size: tuple[int, int]) -> int:
    """Bytes for encoding the start picture of `size` `(H, W)` chunk by chunk, history included."""
    first = torch.empty(1, 3, 4 * chunk - 3, *size, device=META)  # 1 3 F H W
    later = torch.empty(1, 3, 4 * chunk, *size, device=META)
    with DryRun(), LivePeak() as live:
        _, state = vae.encode_stream(first, None)
        vae.encode_stream(later, state)
    return live.peak + later.nbytes


def _nbytes(state: object) -> int:
    """Bytes of the distinct memory under the tensors of a stream's state."""
    storages = [tensor.untyped_storage() for tensor in tensors_in(state)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
