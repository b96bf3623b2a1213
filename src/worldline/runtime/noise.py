"""Noise that depends on nothing but its place: (seed, chunk, pass).

Drawn on the CPU, so a restarted, replayed, branched or sharded chunk sees the same numbers on
every device. Pass 0 is the chunk's initial latent, pass s + 1 the re-noise after denoise step s.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Where a session's noise comes from."""

    def __call__(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of pass `index` of chunk `chunk`, float32 on the CPU."""
        ...


class SeededNoise:
    """Noise from a generator seeded by (seed, chunk, pass)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise `shape`, float32 on the CPU."""
        digest = hashlib.blake2b(f"{self.seed}/{chunk}/{index}".encode(), digest_size=8).digest()
        generator = torch.Generator(device="cpu")
        generator.manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randn(shape, generator=generator, dtype=torch.float32)
