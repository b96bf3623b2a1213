"""What a chunk takes for itself, found by running its networks on torch's meta device.

Nothing is computed and no memory is taken: operators only say what they would allocate. So it works
for every model on every machine. A transformer of two blocks says as much as the whole one, because
each gives back what it took. The networks must lie on the meta device.
"""

from __future__ import annotations

import torch

from worldline.bench.live import DryRun, peak_bytes
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.vae import StreamingVae
from worldline.runtime import probe
from worldline.runtime.probe import Decoder
from worldline.runtime.probe import Decoding as Decoding

META = torch.device("meta")


def passing(dit: LingBotDiT, chunk: int, grid: tuple[int, int]) -> int:
    """See `runtime.probe.passing`."""
    with DryRun():
        return probe.passing(dit, chunk, grid, measure=peak_bytes)


def decoding(decoder: Decoder, chunk: int, grid: tuple[int, int]) -> Decoding:
    """See `runtime.probe.decoding`."""
    with DryRun():
        return probe.decoding(decoder, chunk, grid, device=META, measure=peak_bytes)


def encoding(vae: StreamingVae, chunk: int, size: tuple[int, int]) -> int:
    """See `runtime.probe.encoding`."""
    with DryRun():
        return probe.encoding(vae, chunk, size, device=META, measure=peak_bytes)
