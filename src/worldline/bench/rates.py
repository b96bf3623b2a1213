"""What this machine can do: matrix products at the model's own shapes, and copies of memory.

Rates are those of the best of many short batches: whatever else runs on the machine can only make
a batch slower. Each measurement ends after its share of a second. On a CPU the same products also
run on packed weights (see `ops.packed`) and with more rows, because what the machine can do is not
what one library makes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import torch
from torch import nn

from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.packed import PackedLinear, can_pack

MATMUL_SECONDS = 1.0  # for all shapes together
MANY_ROWS = 512  # at which a CPU's kernels have reached their rate
COPY_SECONDS = 0.5
BATCH_SECONDS = 0.01  # long beside the clock and, on a GPU, beside the wait for the device
COPY_BYTES = {"cpu": 64 * 2**20, "cuda": 2**30}  # larger than any cache


class MatmulRate(msgspec.Struct, frozen=True, kw_only=True):
    """Rate of `[rows, inner] x [inner, columns]`, with the weight `packed` or not."""

    rows: int
    inner: int
    columns: int
    packed: bool
    gflops_per_s: float


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """`matmul_gflops_per_s` is the best of `shapes`; a copied byte counts as read and as written.

    `download_gb_per_s` is from a GPU into pinned host memory.
    """

    dtype: str
    matmul_gflops_per_s: float
    shapes: tuple[MatmulRate, ...]
    copy_gb_per_s: float
    download_gb_per_s: float | None = None


@torch.no_grad()
def measure_rates(dit: LingBotDiT, tokens: int) -> Rates:
    """Measure at the model's dtype, device and threads, with `tokens` rows as in a chunk."""
    width, inner = dit.params.dim, dit.params.ffn_dim
    cuda = dit.device.type == "cuda"
    rows = (tokens,) if cuda else (tokens, max(tokens, MANY_ROWS))
    kinds = (False, True) if not cuda and can_pack(dit.dtype) else (False,)
    chosen = [
        (packed, n, a, b)
        for packed in kinds
        for n in dict.fromkeys(rows)
        for a, b in ((width, width), (width, inner), (inner, width))
    ]
    share = MATMUL_SECONDS / len(chosen)
    shapes = tuple(_matmul(dit, shape, packed=p, seconds=share) for p, *shape in chosen)
    return Rates(
        dtype=str(dit.dtype).removeprefix("torch."),
        matmul_gflops_per_s=max(s.gflops_per_s for s in shapes),
        shapes=shapes,
        copy_gb_per_s=_copy(dit.device),
        download_gb_per_s=_download(dit.device) if cuda else None,
    )


def _matmul(dit: LingBotDiT, shape: Sequence[int], *, packed: bool, seconds: float) -> MatmulRate:
    rows, inner, columns = shape
    a = torch.randn(rows, inner, device=dit.device).to(dit.dtype)
    layer = nn.Linear(inner, columns, bias=False, device=dit.device, dtype=dit.dtype)
    if packed:
        layer = PackedLinear(layer)
    out = torch.empty(rows, columns, device=dit.device, dtype=dit.dtype)
    weight = layer.weight.T
    operation = partial(layer, a) if packed else partial(torch.mm, a, weight, out=out)
    best = best_seconds(operation, device=dit.device, budget=seconds)
    rate = round(2 * rows * inner * columns / best / 1e9, 2)
    return MatmulRate(rows=rows, inner=inner, columns=columns, packed=packed, gflops_per_s=rate)


def _copy(device: torch.device) -> float:
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = best_seconds(lambda: target.copy_(source), device=device, budget=COPY_SECONDS)
    return round(2 * source.nbytes / seconds / 1e9, 2)


def _download(device: torch.device) -> float:
    source = torch.ones(COPY_BYTES["cpu"], dtype=torch.uint8, device=device)
    target = torch.empty(source.shape, dtype=torch.uint8, pin_memory=True)
    seconds = best_seconds(
        lambda: target.copy_(source, non_blocking=True), device=device, budget=COPY_SECONDS
    )
    return round(source.nbytes / seconds / 1e9, 2)


def best_seconds(operation: Callable[[], object], *, device: torch.device, budget: float) -> float:
    """Seconds per call of `operation`, by the fastest batch within about `budget` seconds."""
    _batch(operation, 1, device)  # what only the first call does: pages, handles, plans
    calls = max(1, round(BATCH_SECONDS / max(_batch(operation, 1, device), 1e-7)))
    end = time.perf_counter() + budget
    best = _batch(operation, calls, device)
    while time.perf_counter() < end:
        best = min(best, _batch(operation, calls, device))
    return best


def _batch(operation: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds per call of `calls` calls, the device's work included."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        operation()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
