"""The stage clock: what it adds up, and that on a GPU it waits only when it is asked."""

from __future__ import annotations

import pytest
import torch

from worldline.runtime.timing import StageClock


class Queue:
    """Stands in for a device: marks pass at the times given, one after the other."""

    def __init__(self, times: list[float]) -> None:
        self.times = times
        self.recorded = 0
        self.waited: list[int] = []

    def mark(self) -> Mark:
        return Mark(self)


class Mark:
    """A point in the queue of a stand-in device."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.index = -1

    def record(self) -> None:
        self.index = self.queue.recorded
        self.queue.recorded += 1

    def synchronize(self) -> None:
        self.queue.waited.append(self.index)

    def elapsed_time(self, end_event: Mark, /) -> float:
        return self.queue.times[end_event.index] - self.queue.times[self.index]


def test_stages_add_up_on_the_device() -> None:
    queue = Queue([0.0, 4.0, 5.0, 12.0, 12.0, 13.5])
    clock = StageClock(torch.device("cuda", 0), synchronise=True, mark=queue.mark)
    for name in ("denoise", "context", "denoise"):
        with clock.stage(name):
            pass
    assert queue.recorded == 6 and queue.waited == []  # nothing waits inside a chunk
    found = clock.timings()
    assert (found.denoise_ms, found.context_ms, found.decode_ms) == (5.5, 7.0, 0.0)
    assert queue.waited == [1, 3, 5]
    assert clock.timings().denoise_ms == 5.5


@pytest.mark.parametrize(("device", "synchronise"), [("cpu", True), ("cuda", False)])
def test_the_host_is_timed_where_no_marks_are_wanted(device: str, synchronise: bool) -> None:
    queue = Queue([])
    clock = StageClock(torch.device(device), synchronise=synchronise, mark=queue.mark)
    with clock.stage("decode"):
        pass
    found = clock.timings()
    assert queue.recorded == 0
    assert 0 < found.decode_ms <= found.total_ms


def test_a_stage_without_a_field_is_our_bug() -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.stage("dreaming"):
        pass
    with pytest.raises(TypeError):
        clock.timings()
