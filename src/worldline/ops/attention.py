"""Scaled dot-product attention over token-major tensors, and how blocks call it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


class Attend(Protocol):
    """How a block's self-attention meets history.

    The live ring, full bidirectional attention and a trainer's windowed attention are all one of
    these. Queries and keys arrive normalised and turned by RoPE.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend `q, k, v [B, L, N, D]` of block `layer`; return `[B, L, N, D]`."""
        ...


class CacheWriter(Protocol):
    """An `Attend` that can also store keys and values without reading them."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store `k, v [B, L, N, D]` of block `layer`."""
        ...


class Slots(NamedTuple):
    """Where the current chunk's keys and values go.

    `keys` and `values` are buffers `[1, K, N, D]`, contiguous; token `i` of the chunk belongs into
    row `rows[i]`, int64 `[L]`.
    """

    keys: Tensor
    values: Tensor
    rows: Tensor


@runtime_checkable
class SlotAttend(Protocol):
    """An `Attend` whose slots a kernel may write itself; `read` then takes the place of a call."""

    def slots(self, layer: int) -> Slots:
        """Where block `layer` of the current chunk writes."""
        ...

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attend `q [1, L, N, D]` of block `layer` to every visible slot."""
        ...


class AttentionFn(Protocol):
    """What `attention` is; a backend of it."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`q [B, L, N, D]`, `k, v [B, K, N, D]` -> like `q`."""
        ...


class AttentionShape(NamedTuple):
    """Sizes of one attention: `queries` and `keys` in tokens, `heads` of `head_dim` values."""

    queries: int
    keys: int
    heads: int
    head_dim: int
    dtype: torch.dtype


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, scale `D^-0.5`: `q [B, L, N, D]`, `k, v [B, K, N, D]` -> like `q`."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


class FullAttention:
    """Bidirectional attention over the tokens at hand; remembers nothing."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend every token to every token; `layer` is not used."""
        del layer
        return attention(q, k, v)
