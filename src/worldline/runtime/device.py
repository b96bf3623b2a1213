"""The only place that sets torch's global flags.

`exact` promises the same bits for the same input, in any process and any mix of sessions: a fixed
number of threads, deterministic algorithms, full float32, no autotuning, one attention backend.
`fast` lets torch choose, and measures how many threads are worth it; so does `8bit`, whose networks
are loaded in eight bits. What else a CPU gets is chosen here too: packed weights and, in fast mode,
bfloat16 where the processor multiplies it.
"""

from __future__ import annotations

import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

from worldline.core.errors import ConfigError
from worldline.ops.packed import pack_linears

MODES = ("exact", "fast", "8bit")
# One thread gives the same bits on every number of cores, and the encoder and the event loop share
# the machine with the worker.
EXACT_THREADS = 1
MAX_THREADS = 2
WORTH_A_THREAD = 1.15  # how much faster two threads must be than one
TURNS, BLOCKS_A_TURN = 6, 8
PACKED_BYTES = 2**30  # of weights


def setup(device: str = "auto", mode: str = "exact", threads: int | None = None) -> torch.device:
    """Set all flags for `mode` and return the device that the name stands for, see `resolve`.

    `threads` None is one thread in exact mode; in fast mode one or two, whichever is measured
    faster now. Raises: ConfigError for an unknown mode or device, or no positive thread count.
    """
    if mode not in MODES:
        raise ConfigError("unknown mode", expected=" or ".join(MODES), got=mode)
    if threads is not None and threads < 1:
        raise ConfigError("threads must be positive", expected="1 or more", got=threads)
    target = resolve(device)
    if target.type == "cuda" and target.index is not None:  # what names no device is made there
        torch.cuda.set_device(target)
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


def resolve(device: str) -> torch.device:
    """What `auto`, `auto:N`, `cpu`, `cuda` or `cuda:N` stands for; `auto:N` is of several ranks.

    Raises: ConfigError.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("auto:"):
        device = f"cuda{device[4:]}" if torch.cuda.is_available() else "cpu"
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
    """Threads to compute with: two only where they are measured to be clearly faster, now.

    The encoder and the event loop share the machine with the worker, so never more.
    """
    if (os.cpu_count() or 1) < MAX_THREADS:
        return 1
    one, two = _block_ms()
    return MAX_THREADS if two * WORTH_A_THREAD < one else 1


@torch.no_grad()
def _block_ms() -> tuple[float, float]:
    """Median milliseconds of a small transformer block on one thread and on two.

    Measured by turns, so that what else runs on the machine disturbs both alike; 0.1 s in all.
    """
    x = torch.zeros(1, 64, 192)  # B L C
    heads = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 512, 64)  # B N L D, B N K D
    weight = torch.zeros(576, 192)
    spent: dict[int, list[float]] = {1: [], MAX_THREADS: []}
    for turn in range(-1, TURNS):  # the first wakes the threads
        for threads, found in spent.items():
            torch.set_num_threads(threads)
            for _ in range(BLOCKS_A_TURN):
                start = time.perf_counter()
                for _ in range(4):
                    functional.linear(functional.linear(x, weight), weight.T)
                functional.scaled_dot_product_attention(heads[0], heads[1], heads[1])
                if turn >= 0:
                    found.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent[1]), statistics.median(spent[MAX_THREADS])


def preferred_dtype(device: torch.device, mode: str) -> str | None:
    """The dtype to load in where none was asked for; None leaves it to the model's family.

    bfloat16 in fast mode on processors that multiply it (AVX512-BF16, AMX): on others torch
    emulates it, which is slower than float32.
    """
    if mode != "fast" or device.type != "cpu":
        return None
    found = torch.cpu.get_capabilities()
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") else None


def tune_for_cpu(dit: nn.Module, vae: nn.Module, device: torch.device, *, mode: str) -> None:
    """Pack a transformer's linear layers, unless it is too large to be held twice, and cast the
    autoencoder (see `autoencoder_dtype`). Changes nothing on other devices.
    """
    if device.type != "cpu":
        return
    parameters = list(dit.parameters())
    if is_packed(sum(p.nbytes for p in parameters)):
        pack_linears(dit)
    half = any(p.dtype == torch.bfloat16 for p in parameters)
    vae.to(autoencoder_dtype(device, mode, torch.bfloat16 if half else torch.float32))


def is_packed(nbytes: int) -> bool:
    """Whether a network of so many bytes is packed on the CPU."""
    return nbytes <= PACKED_BYTES


def autoencoder_dtype(device: torch.device, mode: str, dtype: torch.dtype) -> torch.dtype:
    """bfloat16 beside a transformer in bfloat16 in fast mode on a CPU, else float32.

    There it decodes in two thirds of the time; frames differ by two of 255 levels at most.
    """
    return dtype if mode == "fast" and device.type == "cpu" else torch.float32
