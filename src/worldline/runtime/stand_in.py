"""Text states without a text encoder, for networks with random weights.

Benchmarks of a preset need states of the right shape and size, not of the right meaning; this keeps
them from loading 11 GB of encoder and a tokenizer that has no files.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class RandomText:
    """Seeded random states: one row per word and one for the end, zeros after them.

    The same prompt and seed always give the same states; other prompts give others.
    """

    def __init__(
        self,
        text_len: int,
        text_dim: int,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.text_len = text_len
        self.text_dim = text_dim
        self._seed = seed
        self._device = device
        self._dtype = dtype

    def encode(self, prompts: list[str]) -> Tensor:
        """States `[B, S=text_len, text_dim]` of `prompts`."""
        states = torch.zeros(len(prompts), self.text_len, self.text_dim)  # B S C
        for row, prompt in zip(states, prompts, strict=True):
            digest = hashlib.sha256(f"{self._seed}/{prompt}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            length = min(len(prompt.split()) + 1, self.text_len)
            row[:length] = torch.randn(length, self.text_dim, generator=generator)
        return states.to(self._device, self._dtype)
