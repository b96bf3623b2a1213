"""Keys and values of one block in int8, one scale per token and head.

Int8 and not e4m3: a head's row has no outliers after RMS norm, and evenly spaced steps then err
about a quarter as much (`tests/quant/test_rows.py`). Attention reads them through `read`, which
restores as many tokens as are visible: it costs a pass over the cache and halves what that takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worldline.quant.rows import to_int8


class Int8Cache:
    """`tokens` rows per head: `[1, K, N, D]` in int8 and `[1, K, N, 1]` scales in float32."""

    def __init__(
        self, tokens: int, heads: int, head_dim: int, *, device: torch.device | str
    ) -> None:
        self.values = torch.empty(1, tokens, heads, head_dim, dtype=torch.int8, device=device)
        self.scale = torch.empty(1, tokens, heads, 1, dtype=torch.float32, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scale.nbytes

    def write(self, index: Tensor, rows: Tensor) -> None:
        """Quantise `rows [1, L, N, D]` into the tokens `index [L]`."""
        values, scale = to_int8(rows)
        self.values.index_copy_(1, index, values)
        self.scale.index_copy_(1, index, scale)

    def read(self, tokens: int | Tensor, dtype: torch.dtype) -> Tensor:
        """The first `tokens`, or those of an index `[K]`, restored: `[1, K, N, D]`, a new tensor.

        The product is formed in float32 and rounded once to `dtype`.
        """
        if isinstance(tokens, Tensor):
            values, scale = self.values[:, tokens], self.scale[:, tokens]
        else:
            values, scale = self.values[:, :tokens], self.scale[:, :tokens]
        restored = torch.empty(values.shape, dtype=dtype, device=values.device)
        return torch.mul(values, scale, out=restored)

    def change(self, turn: Callable[[Tensor], Tensor], tokens: int) -> None:
        """Replace the first `tokens` rows by `turn` of them in float32, quantised anew."""
        values, scale = to_int8(turn(self.read(tokens, torch.float32)))
        self.values[:, :tokens] = values
        self.scale[:, :tokens] = scale
