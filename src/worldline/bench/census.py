"""What a process holds: tensors, memory, descriptors, shared memory. Counts, not clocks.

Numbers the system does not tell are None. Nothing here changes what it counts.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHARED_MEMORY = "/dev/shm/"
MB = 2**20


class Tensors(NamedTuple):
    """How many tensors, and the bytes of the memory under them, each block counted once."""

    number: int
    nbytes: int


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


def weigh(tensors: Iterable[Tensor]) -> Tensors:
    """Count tensors and the bytes of their distinct storages; meta tensors weigh nothing."""
    number, blocks = 0, dict[tuple[int, torch.device], int]()
    for tensor in tensors:
        number += 1
        if tensor.is_mkldnn:  # packed weights have no storage that torch could show
            blocks[id(tensor), tensor.device] = tensor.numel() * tensor.element_size()
        elif not tensor.is_meta:
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr(), tensor.device] = storage.nbytes()
    return Tensors(number, sum(blocks.values()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor inside our own objects, containers and modules, each object visited once."""
    seen: set[int] = set()
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, nn.Module):
            todo += [*item.parameters(), *item.buffers()]
            # What a module of ours holds besides: nothing of this may be forgotten.
            todo += [v for m in item.modules() for v in vars(m).values() if _is_ours(v)]
        elif isinstance(item, Mapping):
            todo += item.values()
        elif isinstance(item, (tuple, list, set, frozenset)):
            todo += item
        elif _is_ours(item):
            todo += _attributes(item)


def _is_ours(item: Any) -> bool:
    return type(item).__module__.startswith("worldline.")


def _attributes(item: Any) -> Iterator[Any]:
    """What one of our own objects holds, in its dictionary and in its slots."""
    yield from getattr(item, "__dict__", {}).values()
    for base in type(item).__mro__:
        for name in getattr(base, "__slots__", ()):
            yield getattr(item, name, None)


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
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (MB if sys.platform == "darwin" else 2**10), 1)


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
