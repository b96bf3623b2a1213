"""What a process holds: tensors, memory, descriptors, shared memory. Counts, not clocks.

Numbers the system does not tell are None. Nothing here changes what it counts.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldline.runtime.weigh import Tensors as Tensors
from worldline.runtime.weigh import tensors_in as tensors_in
from worldline.runtime.weigh import weigh as weigh

SHARED_MEMORY = "/dev/shm/"
MB = 2**20


class Census(NamedTuple):
    """What the process holds now; `shared` counts mapped pieces of shared memory."""

    tensors: Tensors
    resident_mb: float | None
    device_mb: float | None
    descriptors: int | None
    shared: int | None


def take_census(device: torch.device | None = None) -> Census:
    """Count everything; collects garbage first, so that only what is held is counted."""
    gc.collect()
    return Census(
        tensors=live_tensors(),
        resident_mb=resident_mb(),
        device_mb=device_mb(device),
        descriptors=descriptors(),
        shared=shared_segments(),
    )


def live_tensors() -> Tensors:
    """Every tensor that Python can reach."""
    # By type, not isinstance: some objects in a process warn or load things when asked. Those that
    # torch's compiler only pretends to have hold nothing.
    kinds = (type(o) for o in gc.get_objects())
    real = {kind for kind in kinds if issubclass(kind, Tensor) and kind.__name__ != "FakeTensor"}
    return weigh(o for o in gc.get_objects() if type(o) in real)


def mb_of(value: Any) -> float:
    """Megabytes of the tensors inside `value`."""
    return round(weigh(tensors_in(value)).nbytes / MB, 3)


def resident_mb() -> float | None:
    """Memory of this process that lies in RAM now, in MB; Linux only."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def peak_memory_mb(device: torch.device) -> float | None:
    """The most a GPU's allocator, or this process where there is no GPU, has held so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / MB, 1)
    if sys.platform == "win32":
        return None
    if (own := _high_water_mb()) is not None:
        return own
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (MB if sys.platform == "darwin" else 2**10), 1)


def _high_water_mb() -> float | None:
    """The peak that Linux tells of this program; `getrusage` counts who started it, too."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return None if found is None else round(int(found[1]) / 2**10, 1)


def device_mb(device: torch.device | None) -> float | None:
    """What the GPU's allocator holds for tensors now, in MB."""
    if device is None or device.type != "cuda":
        return None
    return torch.cuda.memory_allocated(device) / MB


def descriptors(pid: int | None = None) -> int | None:
    """Open file descriptors of this process, or of process `pid` (Linux only)."""
    folders = ("/proc/self/fd", "/dev/fd") if pid is None else (f"/proc/{pid}/fd",)
    own = pid is None  # then the one that lists them is among them
    for folder in folders:
        try:
            return len(os.listdir(folder)) - own
        except OSError:
            continue
    return None


def shared_segments(pid: int | None = None) -> int | None:
    """Pieces of shared memory that this process, or process `pid`, has mapped; Linux only."""
    try:
        lines = Path(f"/proc/{pid or 'self'}/maps").read_text().splitlines()
    except OSError:
        return None
    return sum(SHARED_MEMORY in line for line in lines)
