"""Wall time of the stages of a chunk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from worldline.core.chunk import StageTimings


class StageClock:
    """Adds up milliseconds per stage; `total_ms` runs from its creation.

    On a CUDA device work is queued, so a stage's time is only true with `synchronise`, which costs
    a device sync per stage and is therefore off except in measurements; the total is always true,
    because the frames' copy to the host waits for the device.
    """

    def __init__(self, device: torch.device, *, synchronise: bool = False) -> None:
        self._wait = synchronise and device.type == "cuda"
        self._device = device
        self._start = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the enclosed work towards `name`, a field of `StageTimings` less its `_ms`."""
        start = time.perf_counter()
        yield
        if self._wait:
            torch.cuda.synchronize(self._device)
        spent = (time.perf_counter() - start) * 1000
        self._spent[f"{name}_ms"] = self._spent.get(f"{name}_ms", 0.0) + spent

    def timings(self) -> StageTimings:
        """What was spent until now."""
        total = (time.perf_counter() - self._start) * 1000
        return StageTimings(**self._spent, total_ms=total)
