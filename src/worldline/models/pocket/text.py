"""The pocket world's text encoder: a bag of known words behind the interface of UMT5.

A prompt becomes the table rows of its known words, in order, each once, zero-padded; unknown words
are skipped, so they do no harm. A prompt without a known word becomes one learned null row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldline.models.pocket.params import PocketTextParams

PAD = -1


class PocketText(nn.Module):
    """See the module's contract; row `len(words)` of the table is the null row."""

    def __init__(self, params: PocketTextParams) -> None:
        super().__init__()
        self.params = params
        self._rows = {word: row for row, word in enumerate(params.words)}
        assert len(self._rows) == len(params.words), "the word list has doubles"
        self.table = nn.Parameter(torch.empty(len(params.words) + 1, params.text_dim))
        nn.init.normal_(self.table)

    @property
    def text_len(self) -> int:
        """Rows of an encoded prompt."""
        return self.params.text_len

    @property
    def text_dim(self) -> int:
        """Width of a row."""
        return self.params.text_dim

    def rows(self, prompts: Sequence[str]) -> Tensor:
        """Table rows of each prompt, int64 `[B, S]`, `PAD` after the end."""
        result = torch.full((len(prompts), self.text_len), PAD, dtype=torch.int64)
        for i, prompt in enumerate(prompts):
            words = dict.fromkeys(re.findall(r"[a-z]+", prompt.lower()))
            known = [self._rows[word] for word in words if word in self._rows][: self.text_len]
            known = known or [len(self._rows)]
            result[i, : len(known)] = torch.tensor(known)
        return result

    def embed(self, rows: Tensor) -> Tensor:
        """Table entries `[B, S, text_dim]` of `rows` `[B, S]`; zero where padded."""
        rows = rows.to(self.table.device)
        entries = self.table[rows.clamp(min=0)]  # B S text_dim
        return entries * (rows != PAD).unsqueeze(-1).to(entries.dtype)

    def encode(self, prompts: list[str]) -> Tensor:
        """Text states `[B, S, text_dim]`, zero-padded after the true length."""
        return self.embed(self.rows(prompts))
