"""Three-axis rotary position embedding over interleaved pairs.

The `D/2` complex dimensions of a head are split into time, height and width, each with its own
frequency ladder. Time positions are absolute latent-frame indices and have no end: angles are
formed in float64, reduced to one turn, and only then cast, so frame 10^9 is as exact as frame 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.ops.cast import cast


class RopeTable(NamedTuple):
    """Cosines and sines of every token, float32 `[L, D/2]`.

    `turn` is `cos + i sin` as complex numbers `[L, 1, D/2]`: one product turns a pair. Without it
    the same is computed from the other two; compilers know no complex numbers.
    """

    cos: Tensor
    sin: Tensor
    turn: Tensor | None = None


def axis_split(head_dim: int) -> tuple[int, int, int]:
    """Complex dimensions given to (time, height, width): 22, 21, 21 for a head of 128."""
    pairs = head_dim // 2
    third = pairs // 3
    return pairs - 2 * third, third, third


def _axis_angles(positions: Tensor, pairs: int) -> Tensor:
    """Angles in [0, 2 pi): `positions [n]` -> float64 `[n, pairs]`."""
    steps = torch.arange(pairs, dtype=torch.float64, device=positions.device)
    frequencies = torch.pow(torch.tensor(10000.0, dtype=torch.float64), -steps / max(pairs, 1))
    return torch.remainder(positions.to(torch.float64).outer(frequencies), 2 * math.pi)


def rope_table(
    frames: Sequence[int],
    rows: int,
    columns: int,
    *,
    head_dim: int,
    device: torch.device | str = "cpu",
    tokens: range | None = None,
) -> RopeTable:
    """Build the table for latent frames at absolute positions `frames` on a `rows x columns` grid.

    Token order is frame, row, column; with `tokens` only those rows are made. Angles are always
    computed on the CPU in float64, so that every device gets the same bits.
    """
    time_pairs, row_pairs, column_pairs = axis_split(head_dim)
    time = _axis_angles(torch.tensor(list(frames), dtype=torch.float64), time_pairs)
    row = _axis_angles(torch.arange(rows), row_pairs)
    column = _axis_angles(torch.arange(columns), column_pairs)
    count = len(frames)
    angles = torch.cat(
        [
            time[:, None, None].expand(count, rows, columns, time_pairs),
            row[None, :, None].expand(count, rows, columns, row_pairs),
            column[None, None, :].expand(count, rows, columns, column_pairs),
        ],
        dim=-1,
    ).reshape(count * rows * columns, -1)  # L D/2
    if tokens is not None:
        angles = angles[tokens.start : tokens.stop]
    cos, sin = angles.cos().float(), angles.sin().float()
    turn = torch.complex(cos, sin).unsqueeze(1)  # L 1 D/2
    return RopeTable(cos.to(device), sin.to(device), turn.to(device))


def apply_rope(x: Tensor, table: RopeTable) -> Tensor:
    """Turn the interleaved pairs of `x [B, L, N, D]` by the table's angles, in float32."""
    pairs = cast(x, torch.float32).unflatten(-1, (-1, 2))  # B L N D/2 2
    if table.turn is not None:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * table.turn)
        return cast(turned.flatten(-2), x.dtype)  # B L N D
    even, odd = pairs.unbind(-1)  # B L N D/2
    cos, sin = table.cos[:, None, :], table.sin[:, None, :]  # L 1 D/2
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)  # B L N D
