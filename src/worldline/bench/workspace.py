"""The most memory that one call takes beyond what was held before it, as torch's allocator saw it.

Unlike `live`, which counts tensors, this sees what operators take for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.profiler import profile

ALLOCATION = "[memory]"  # what the profiler calls an event of the allocator


def workspace_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Bytes beyond those held before, at the worst moment of `step`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    profiler = profile(profile_memory=True)
    with profiler:
        step()
    results = profiler.kineto_results
    assert results is not None, "the profiler has ended"
    return highest(results.events())


def highest(events: Sequence[Any]) -> int:
    """The highest sum of allocated less freed bytes; it never falls below zero, the start."""
    taken = [(event.start_ns(), event.nbytes()) for event in events if event.name() == ALLOCATION]
    now = most = 0
    for _, nbytes in sorted(taken, key=lambda one: one[0]):
        now += nbytes
        most = max(most, now)
    return most
