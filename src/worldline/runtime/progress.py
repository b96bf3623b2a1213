"""Whether the main thread of a rank gets on: stamps in memory that it shares with its parent.

A rank stamps whenever it enters a stage of its work, and says how long that stage may take:

    max(2 s, 3 x the p99 of what it took before at the same place of a session of that size)

or ten minutes when it has never been there (loading has no limit: compiling and warming up are such
first times; where nothing is compiled, ten times the longest it took elsewhere in such a session).
The parent only looks whether the stamp moves; it needs no clock in common and knows nothing of
stages. A rank that waits for work may wait for ever, but not while work waits for it.
Torch-free.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

FLOOR_S: Final = 2.0
FACTOR: Final = 3.0
KIN_FACTOR: Final = 10.0
# Nobody waits for it, and now and then it copies gigabytes to the host (`first_chunk`).
PREPARING_S: Final = 10.0
COLD_S: Final = 600.0  # a first time: may compile, measure, record
# Of every limit, for noticing and ending the ranks: sessions are to know within the limit.
SLACK_S: Final = 0.4
WARM_SAMPLES: Final = 8  # so many make the first, cold one forgotten
SAMPLES: Final = 128
PLACES: Final = 2048  # stages of places in sessions whose times are kept

STAGES: Final = (
    "waiting",
    "loading",
    "opening",
    "step",
    "text",
    "conditions",
    "encode",
    "denoise",
    "context",
    "recache",
    "decode",
    "transfer",
    "preparing",
    "moving",
    "film",
    "walking again",
    "another call",
    "telling the other ranks",
)
_OTHER: Final = STAGES.index("another call")
_UNLIMITED: Final = 0

Cells = Any  # a shared array of 64-bit numbers, a row per rank


class _Row:
    """What each number of a row is."""

    MOVES, ALLOWED_MS, STAGE, TAKEN, FED, WIDTH = range(6)


def board(ranks: int) -> Cells:
    """Shared memory for the stamps of so many ranks; goes to them when they are started."""
    return multiprocessing.get_context("spawn").RawArray(ctypes.c_uint64, ranks * _Row.WIDTH)


def p99(samples: Sequence[float]) -> float:
    """The 99th percentile: the smallest sample that 99 % do not exceed."""
    return sorted(samples)[math.ceil(0.99 * len(samples)) - 1]


class StageTimes:
    """How long stages took, by place, and so how long they may take; pure. Seconds."""

    def __init__(self) -> None:
        self._first: OrderedDict[Hashable, float] = OrderedDict()
        self._later: dict[Hashable, deque[float]] = {}
        self._longest: OrderedDict[Hashable, float] = OrderedDict()  # among kin

    def allowed_s(self, place: Hashable, kin: Hashable = None) -> float:
        """How long a stage at `place` may take now; a first time may not be unlike its `kin`."""
        if place not in self._first:
            if kin is None or kin not in self._longest:
                return COLD_S
            return max(FLOOR_S, KIN_FACTOR * self._longest[kin])
        later = self._later[place]
        samples = later if len(later) >= WARM_SAMPLES else [self._first[place], *later]
        return max(FLOOR_S, FACTOR * p99(samples))

    def note(self, place: Hashable, seconds: float, kin: Hashable = None) -> None:
        """It took so long; places not seen for long are forgotten."""
        if kin is not None:
            self._longest[kin] = max(seconds, self._longest.get(kin, 0.0))
            self._longest.move_to_end(kin)
            if len(self._longest) > PLACES:
                self._longest.popitem(last=False)
        if place in self._first:
            self._later[place].append(seconds)
        else:
            self._first[place], self._later[place] = seconds, deque(maxlen=SAMPLES)
        self._first.move_to_end(place)
        if len(self._first) > PLACES:
            oldest, _ = self._first.popitem(last=False)
            del self._later[oldest]


class Stamps:
    """The row of one rank, written by its main thread only."""

    def __init__(
        self,
        cells: Cells,
        rank: int,
        *,
        compiles: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """With `compiles` any first time may take long."""
        self._compiles = compiles
        self._kin: Hashable = None
        self._cells, self._at, self._now = cells, rank * _Row.WIDTH, now
        self._times = StageTimes()
        self._where: Hashable = ()
        self._patient = False
        self._stage = "waiting"
        self._since = now()

    def begin(
        self, stage: str, where: Hashable = (), *, kin: Hashable = None, patient: bool = False
    ) -> None:
        """A call begins; `where` tells its place in a session of what size.

        Stages of the same `kin` take about as long at every place, unless they are compiled there.
        `patient` is for calls that may take long each time: all their stages count as first times.
        """
        self._end()
        self._where, self._patient = where, patient
        self._kin = None if self._compiles else kin
        self._begin(stage)

    def enter(self, stage: str) -> None:
        """The next stage of the same call."""
        self._end()
        self._begin(stage)

    def beat(self) -> None:
        """The same stage gets on: a pass is over, or pictures are there."""
        self.enter(self._stage)

    def wait(self) -> None:
        """Nothing to do, until there is."""
        self._end()
        self._stage, self._patient = "waiting", False
        self._stamp(_UNLIMITED)

    def took(self) -> None:
        """One more call, or order, was taken up."""
        self._cells[self._at + _Row.TAKEN] += 1

    def fed(self) -> None:
        """One more order went to the other ranks."""
        self._cells[self._at + _Row.FED] += 1

    def _begin(self, stage: str) -> None:
        self._stage, self._since = stage, self._now()
        place = self._where, stage
        kin = None if self._kin is None else (self._kin, stage)
        allowed_s = COLD_S if self._patient else self._times.allowed_s(place, kin)
        if stage == "preparing":
            allowed_s = max(PREPARING_S, allowed_s)
        self._stamp(math.ceil(1000 * allowed_s))

    def _end(self) -> None:
        if self._stage != "waiting" and not self._patient:
            kin = None if self._kin is None else (self._kin, self._stage)
            self._times.note((self._where, self._stage), self._now() - self._since, kin)

    def _stamp(self, allowed_ms: int) -> None:
        stage = STAGES.index(self._stage) if self._stage in STAGES else _OTHER
        self._cells[self._at + _Row.STAGE] = stage
        self._cells[self._at + _Row.ALLOWED_MS] = allowed_ms
        self._cells[self._at + _Row.MOVES] += 1


class NoStamps(Stamps):
    """Nobody looks: an engine that runs in no rank of its own."""

    def __init__(self) -> None:
        super().__init__([0] * _Row.WIDTH, 0)


class Stall(NamedTuple):
    """A rank that does not get on: how long it has not, and in which stage."""

    rank: int
    stage: str
    still_s: float

    def __str__(self) -> str:
        return f"rank {self.rank} did not get on for {self.still_s:.1f} s in {self.stage}"


class Watch:
    """The parent's look at all rows; pure but for reading them. Told how much time has passed."""

    def __init__(self, cells: Cells, ranks: int) -> None:
        self._cells = cells
        self._moves = [0] * ranks
        self._still_s = [0.0] * ranks

    def look(self, passed_s: float, sent: int) -> Stall | None:
        """Who has not got on for too long, the longest first; `sent` calls went to rank 0."""
        stalls: list[Stall] = []
        for rank in range(len(self._moves)):
            row = self._row(rank)
            allowed_s = row[_Row.ALLOWED_MS] / 1000
            if row[_Row.ALLOWED_MS] == _UNLIMITED:
                owed = sent if rank == 0 else self._row(0)[_Row.FED]
                allowed_s = FLOOR_S if row[_Row.TAKEN] < owed else math.inf
            if row[_Row.MOVES] != self._moves[rank] or allowed_s == math.inf:
                self._moves[rank], self._still_s[rank] = row[_Row.MOVES], 0.0
                continue
            self._still_s[rank] += passed_s
            if self._still_s[rank] > allowed_s - SLACK_S:
                stalls.append(Stall(rank, STAGES[row[_Row.STAGE]], self._still_s[rank]))
        return max(stalls, key=lambda stall: stall.still_s, default=None)

    def _row(self, rank: int) -> list[int]:
        return self._cells[rank * _Row.WIDTH : (rank + 1) * _Row.WIDTH]
