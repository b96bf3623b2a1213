"""The only place that sets torch's global flags.

`exact` promises the same bits for the same input, in any process and any mix of sessions: a fixed
number of threads, deterministic algorithms, full float32, no autotuning, one attention backend.
`fast` lets torch choose, and measures how many threads are worth it.
"""

from __future__ import annotations

import os
import statistics
import time

import torch
from torch.nn import functional

from worldline.core.errors import ConfigError

MODES = ("exact", "fast")
# One thread gives the same bits on every number of cores, and the encoder and the event loop share
# the machine with the worker.
EXACT_THREADS = 1
MAX_THREADS = 2


def setup(device: str = "auto", mode: str = "exact", threads: int | None = None) -> torch.device:
    """Set all flags for `mode` and return the device `auto`, `cpu`, `cuda` or `cuda:N` stands for.

    `threads` None is one thread in exact mode; in fast mode one or two, whichever is measured
    faster now. Raises: ConfigError for an unknown mode or device, or no positive thread count.
    """
    if mode not in MODES:
        raise ConfigError("unknown mode", expected=" or ".join(MODES), got=mode)
    if threads is not None and threads < 1:
        raise ConfigError("threads must be positive", expected="1 or more", got=threads)
    target = _resolve(device)
    exact = mode == "exact"
    if exact and target.type == "cuda":
        # cuBLAS reads this when it is first used; without it, its results may differ between runs.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not `use_deterministic_algorithms`, which does the same and imports the compiler: a second.
    torch.set_deterministic_debug_mode("error" if exact else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    torch.backends.cudnn.benchmark = not exact
    torch.backends.cudnn.deterministic = exact
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    _attention_backends(exact)
    torch.set_num_threads(threads or (EXACT_THREADS if exact else fastest_threads()))
    return target


def _attention_backends(exact: bool) -> None:
    """In exact mode flash attention, or plain mathematics where it does not apply (float32)."""
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(not exact)
    torch.backends.cuda.enable_cudnn_sdp(not exact)


def _resolve(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        target = None
    if target is None or target.type not in ("cpu", "cuda"):
        raise ConfigError("unknown device", expected="auto, cpu, cuda or cuda:N", got=device)
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        got = f"{device} on a machine with {torch.cuda.device_count()} CUDA devices"
        raise ConfigError("this device is not here", expected="cpu, or a device that is", got=got)
    return target


def fastest_threads() -> int:
    """One or two threads, by timing a block of about the pocket world's size with each."""
    counts = range(1, min(MAX_THREADS, os.cpu_count() or 1) + 1)
    return min(counts, key=_block_ms)


@torch.no_grad()
def _block_ms(threads: int) -> float:
    """Median milliseconds of one small transformer block on `threads` threads."""
    torch.set_num_threads(threads)
    x = torch.zeros(1, 64, 192)  # B L C
    heads = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 512, 64)  # B N L D, B N K D
    weight = torch.zeros(576, 192)
    spent: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        for _ in range(4):
            functional.linear(functional.linear(x, weight), weight.T)
        functional.scaled_dot_product_attention(heads[0], heads[1], heads[1])
        spent.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent[5:])
