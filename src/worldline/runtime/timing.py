"""Time of the stages of a chunk: the host's on a CPU, the device's own on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from worldline.core.chunk import StageTimings


class DeviceMark(Protocol):
    """A point in a device's queue; `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Put the mark into the current stream's queue."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has passed the mark."""
        ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds the device took from this mark to `end_event`, one of the same kind."""
        ...


def unwatched(stage: str) -> None:
    """Nobody wants to know which stage begins."""


class _Span(NamedTuple):
    name: str
    begin: DeviceMark
    end: DeviceMark


def _cuda_mark() -> DeviceMark:
    return torch.cuda.Event(enable_timing=True)


class StageClock:
    """Adds up milliseconds per stage; `total_ms` runs from its creation, on the host.

    On a CUDA device work is queued, so what the host sees of a stage is how long queueing took.
    With `synchronise` a mark goes into the queue before and after each stage instead: nothing waits
    until `timings` is asked, which is to be when the chunk's frames are on the host.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        synchronise: bool = False,
        mark: Callable[[], DeviceMark] = _cuda_mark,
        entered: Callable[[str], None] = unwatched,
    ) -> None:
        """`entered` is called with the name of every stage that begins."""
        self._entered = entered
        self._mark = mark if synchronise and device.type == "cuda" else None
        self._spans: list[_Span] = []
        self._start = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the enclosed work towards `name`, a field of `StageTimings` less its `_ms`.

        On a GPU the work is to be queued in the stream that is current at the beginning.
        """
        self._entered(name)
        if self._mark is None:
            start = time.perf_counter()
            yield
            self._add(name, (time.perf_counter() - start) * 1000)
        else:
            span = _Span(name, self._mark(), self._mark())
            span.begin.record()
            yield
            span.end.record()
            self._spans.append(span)

    def timings(self) -> StageTimings:
        """What was spent until now; with marks on the device, waits until it has passed them."""
        for name, begin, end in self._spans:
            end.synchronize()
            self._add(name, begin.elapsed_time(end))
        self._spans.clear()
        total = (time.perf_counter() - self._start) * 1000
        return StageTimings(**self._spent, total_ms=total)

    def _add(self, name: str, spent: float) -> None:
        self._spent[f"{name}_ms"] = self._spent.get(f"{name}_ms", 0.0) + spent
