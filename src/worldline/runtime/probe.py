"""What a chunk takes for itself, found by running its networks and counting what they allocate.

`measure` runs a call and says the most it took; it decides what is counted. On the meta device
(`bench.dry_run`) nothing is computed and no memory is taken; on a real one small sizes say enough,
because everything that lives in a chunk grows with the picture's area.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.models.lingbot.blocks import CameraModulation
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.vae import StreamingVae
from worldline.runtime.weigh import tensors_in

LATENT_CHANNELS = 16
Measure = Callable[[Callable[[], object]], int]


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

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """See `__call__`."""

    def attend(self, query: Tensor) -> Tensor:
        """Stands in for the text."""
        return torch.empty_like(query)


@torch.no_grad()
def passing(dit: LingBotDiT, chunk: int, grid: tuple[int, int], *, measure: Measure) -> int:
    """Bytes that a denoise pass over `chunk` latent frames of `grid` tokens takes at once.

    Weights, ring, prompt and the camera's tables are not in it.
    """
    params, tokens, blocks = dit.params, chunk * grid[0] * grid[1], dit.params.num_layers
    device = dit.device
    table = torch.zeros(1, tokens, params.dim, dtype=dit.dtype, device=device)  # B L C
    noisy = torch.zeros(1, params.in_dim, chunk, 2 * grid[0], 2 * grid[1], device=device)
    fused = _Fused()
    time = dit.time_tables(dit.embed_time(torch.zeros(1, device=device)))
    rope = dit.rope(range(chunk), *grid)

    def run() -> None:
        x = dit.run_blocks(
            dit.patchify(noisy),
            time=time,
            rope=rope,
            camera=[CameraModulation(table, table)] * blocks,
            cross=[fused] * blocks,
            attend=fused,
        )
        dit.project(x, time, (chunk, *grid))

    return measure(run) + noisy.nbytes


@torch.no_grad()
def decoding(
    decoder: Decoder,
    chunk: int,
    grid: tuple[int, int],
    *,
    device: torch.device,
    measure: Measure,
) -> Decoding:
    """Decoding `chunk` latent frames of `grid` `(h, w)` in the middle of a clip.

    The new history is made while the old one is still needed.
    """
    latents = torch.zeros(1, LATENT_CHANNELS, chunk, *grid, device=device)
    _, state = decoder.decode_stream(latents, None)
    _, state = decoder.decode_stream(latents, state)
    return Decoding(_nbytes(state), measure(lambda: decoder.decode_stream(latents, state)))


@torch.no_grad()
def encoding(
    vae: StreamingVae,
    chunk: int,
    size: tuple[int, int],
    *,
    device: torch.device,
    measure: Measure,
) -> int:
    """Bytes for encoding the start picture of `size` `(H, W)` chunk by chunk, history included."""
    first = torch.zeros(1, 3, 4 * chunk - 3, *size, device=device)  # 1 3 F H W
    later = torch.zeros(1, 3, 4 * chunk, *size, device=device)

    def run() -> None:
        _, state = vae.encode_stream(first, None)
        vae.encode_stream(later, state)

    return measure(run) + later.nbytes


def _nbytes(state: object) -> int:
    """Bytes of the distinct memory under the tensors of a stream's state."""
    storages = [tensor.untyped_storage() for tensor in tensors_in(state)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


@torch.no_grad()
def settle(dit: LingBotDiT) -> None:
    """Run every layer once, so that what is packed when it is first used is there."""
    params, device = dit.params, dit.device
    rays = torch.zeros(1, params.control_channels, 1, 2, 2, device=device)
    text = torch.zeros(1, params.text_len, params.text_dim, device=device)
    noisy = torch.zeros(1, params.in_dim, 1, 2, 2, device=device)
    time, fused = dit.time_tables(dit.embed_time(torch.zeros(1, device=device))), _Fused()
    shared: dict[str, Any] = {
        "time": time,
        "rope": dit.rope(range(1), 1, 1),
        "camera": dit.camera_modulation(dit.embed_camera(rays)),
        "cross": dit.cross_kv(dit.embed_text(text)),
    }
    dit.project(dit.run_blocks(dit.patchify(noisy), attend=fused, **shared), time, (1, 1, 1))
    dit.write_cache(dit.patchify(noisy), writer=fused, **shared)
