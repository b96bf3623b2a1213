"""Which all-to-all is used for which shape: found by measuring, with the plain one as the oracle.

The first time a shape comes, both ways are run on it. The other one is used from then on if it gave
the plain one's bits and was faster, on every rank; ranks always go the same way. What fails on one
of them is not tried again on any.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger("worldline.parallel")
RUNS = 20
Exchange = Callable[[Tensor, Tensor], None]  # received, sent: equal parts of and for every rank
Clock = Callable[[Callable[[], None]], float]


class Shape(NamedTuple):
    """What an exchange depends on."""

    nbytes: int
    device: torch.device


class Found(NamedTuple):
    """Of a shape, on this rank in ms; `better` is whether the other way is used, on all ranks."""

    plain_ms: float
    other_ms: float
    better: bool


class Choice:
    """Goes the better way; `found` by shape. `every` says whether something holds on all ranks."""

    def __init__(
        self, plain: Exchange, other: Exchange, *, every: Callable[[bool], bool], clock: Clock
    ) -> None:
        """`clock` says how many ms a call takes, the device's work included."""
        self._plain, self._other, self._every, self._clock = plain, other, every, clock
        self._broken = False
        self.found: dict[Shape, Found] = {}

    def __call__(self, received: Tensor, sent: Tensor) -> None:
        """Exchange equal parts."""
        shape = Shape(sent.nbytes, sent.device)
        if shape not in self.found:
            self.found[shape] = self._compared(received, sent)
        way = self._other if self.found[shape].better else self._plain
        way(received, sent)

    def _compared(self, received: Tensor, sent: Tensor) -> Found:
        plain_ms = self._timed(self._plain, received, sent)
        if self._broken:
            return Found(plain_ms, 0.0, better=False)
        wanted = received.clone()
        received.zero_()
        works = True
        try:
            self._other(received, sent)
            works = torch.equal(received.view(torch.uint8), wanted.view(torch.uint8))
            if not works:
                log.warning("the one-shot all-to-all gives other bits and is not used")
        except RuntimeError as error:
            log.warning("no one-shot all-to-all: %s", error)
            works = False
        if not self._every(works):
            self._broken = True
            return Found(plain_ms, 0.0, better=False)
        other_ms = self._timed(self._other, received, sent)
        return Found(plain_ms, other_ms, better=self._every(other_ms < plain_ms))

    def _timed(self, way: Exchange, received: Tensor, sent: Tensor) -> float:
        def run() -> None:
            for _ in range(RUNS):
                way(received, sent)

        run()  # the first ones are slow
        return self._clock(run) / RUNS


def device_clock(run: Callable[[], None]) -> float:
    """Milliseconds of `run`, until the current GPU has done its work."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000
