"""How many bytes things take, computed from the configuration."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import torch

from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.preset import RuntimeParams
from worldline.runtime.state import Geometry

SCALE = FLOAT32 = 4  # bytes; a row in eight bits keeps one such number
USABLE = 0.95  # of a card: the rest is the driver's, the libraries' and lost between tensors
HOST_SHARE = 0.8  # of the host's free memory, where the CPU computes
CGROUP = Path("/sys/fs/cgroup")
# Share of the free memory that the camera modulation of one chunk may take.
CAMERA_SHARE = 0.5


class Kept(NamedTuple):
    """Bytes of what a session keeps or shares with its chunk, by the numbers of the transformer.

    `ring` of keys and values, or `ring_int8`; `prompt` projected for every block; `tables` of time,
    positions and rays; `camera` is the scale and shift of all blocks, which live in a chunk only.
    """

    ring: int
    ring_int8: int
    prompt: int
    tables: int
    camera: int

    @classmethod
    def of(
        cls,
        dit: DiTParams,
        settings: RuntimeParams,
        geometry: Geometry,
        *,
        dtype: torch.dtype,
        ranks: int = 1,
    ) -> Kept:
        """For a session of those settings and that size; a ring without a window counts nothing.

        Of `ranks` that share it out, what the one with the most tokens keeps.
        """
        window, tokens = max(settings.window, 0), geometry.tokens_per_frame
        row = 2 * dit.num_layers * dit.dim  # numbers of a token, keys and values
        heads = 2 * dit.num_layers * dit.num_heads
        chunk, cells = settings.chunk * tokens, settings.chunk * math.prod(geometry.latent)
        chunk = -(-chunk // ranks)
        time = (len(settings.steps) + 1) * (6 * dit.num_layers + 2) * dit.dim * FLOAT32
        rope = chunk * dit.head_dim * FLOAT32
        rays = cells * dit.control_channels * FLOAT32
        return cls(
            ring=window * tokens * row // ranks * dtype.itemsize,
            ring_int8=window * tokens * (row + heads * SCALE) // ranks,
            prompt=row * dit.text_len * dtype.itemsize,
            tables=time + rope + rays + chunk * dit.dim * dtype.itemsize,
            camera=camera_modulation_bytes(dit, chunk, dtype=dtype),
        )


def camera_modulation_bytes(dit: DiTParams, tokens: int, *, dtype: torch.dtype) -> int:
    """Bytes of scale and shift of all blocks for `tokens`: 3.8 GB at 14B and 4,680 tokens."""
    return 2 * dit.num_layers * tokens * dit.dim * dtype.itemsize


def camera_cache_fits(dit: LingBotDiT, tokens: int) -> bool:
    """Whether the camera modulation of a chunk may be kept for its passes, or is recomputed."""
    taken = camera_modulation_bytes(dit.params, tokens, dtype=dit.dtype)
    return taken <= CAMERA_SHARE * free_bytes(dit.device)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of the host for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:  # macOS and Windows do not say; a laptop's model is small
        return 1 << 40
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def budget_bytes(device: torch.device, held: int) -> int:
    """What a worker may take of a device in all, of which it holds `held` already."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return min(int(USABLE * total), held + free)
    return held + int(HOST_SHARE * host_bytes())


def host_bytes() -> int:
    """Memory of the host that could be taken now, within the limit of a container."""
    found = [_number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")]
    limits = [found[0] - found[1]] if found[0] is not None and found[1] is not None else []
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(int(told["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        limits.append(free_bytes(torch.device("cpu")))
    return max(0, min(limits))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
