"""Cross-attention over the distinct rows of a prompt.

Text states are zero after the prompt's true length, so their embedded rows, keys and values are all
the same. Instead of attending to some hundred equal keys, one of them is kept and its score raised
by the logarithm of how many it stands for: exact in real arithmetic, rounded differently. The
logarithm stays in float32, where bfloat16 would be off by a percent.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldline.models.lingbot.blocks import TextAttend, TextKV
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.block_math import PLAIN, BlockMath, EqualKeys

# Rows kept beside the merged one are a multiple of this, so that prompts share few shapes.
ROWS_STEP = 32
# Fewer padding rows than this are cheaper attended one by one: 16 rows of the pocket world take
# 0.023 ms per block as they are and 0.041 ms merged; 512 rows with 30 words 14 ms and 2 ms.
LEAST_MERGED = 64


class DistinctText(NamedTuple):
    """Projected text of one block `[B, S', N, D]`; its last row stands for `merged` equal ones."""

    k: Tensor
    v: Tensor
    bias: Tensor  # 1 1 1 S', float32: 0, and log(merged) for the last row
    merged: int
    math: BlockMath = PLAIN

    def attend(self, query: Tensor) -> Tensor:
        """Cross-attention of `query [B, L, N, D]`, as over all rows."""
        q, k, v = query.transpose(1, 2), self.k.transpose(1, 2), self.v.transpose(1, 2)
        if q.device.type == "cuda" and q.dtype != torch.float32:
            return merged_attention(q, k, v, self.merged, math=self.math).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).transpose(1, 2)


def merged_attention(
    q: Tensor, k: Tensor, v: Tensor, count: int, *, math: BlockMath = PLAIN
) -> Tensor:
    """Attention of `q [B, N, L, D]` to `k, v [B, N, S', D]`, the last row counting `count` times.

    Flash attention takes no bias, so it runs over the other rows, and the last one is mixed in by
    the logarithm of the sum that it returns beside its result.
    """
    out, log_sum = _flash(q, k[:, :, :-1], v[:, :, :-1])  # B N L D, B N L
    return math.mix_key(out, log_sum, q=q, key=EqualKeys(k[:, :, -1:], v[:, :, -1:], count))


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Flash attention and, per query, the logarithm of the sum of exponentials."""
    if q.device.type == "cuda":
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)


def true_rows(states: Tensor) -> int:
    """How many rows of `states [1, S, C]` come before the zero padding; reads the device."""
    used = (states != 0).any(-1).any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def kept_rows(rows: int, total: int) -> int | None:
    """Rows to attend one by one of a prompt of `rows` rows in `total`; None where all of them."""
    kept = -(-rows // ROWS_STEP) * ROWS_STEP
    return kept if total - kept >= LEAST_MERGED else None


def distinct_text(
    dit: LingBotDiT, states: Tensor, kept: int, *, math: BlockMath = PLAIN
) -> list[TextAttend]:
    """Keys and values of every block of `states [1, S, C]`, zero from row `kept` on."""
    count = states.shape[1] - kept
    bias = torch.zeros(1, 1, 1, kept + 1, device=states.device)
    bias[..., -1:].fill_(log(count))
    text: list[TextKV] = dit.cross_kv(dit.embed_text(states[:, : kept + 1]))
    return [DistinctText(k, v, bias, count, math) for k, v in text]
