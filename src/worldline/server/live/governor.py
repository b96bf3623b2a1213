"""When the next chunk starts, whether one is begun anew, and what is given up when behind; pure.

Just in time: a chunk starts so that its pictures come when the client's queue has shrunk to the
lead it asked for, as late as the measured p99 of a chunk allows. The hand is sampled then. Without
enough time (a chunk takes as long as it plays) it starts at once, always.

When behind, levers are pulled one by one in the order they are given, and let go one by one, last
first, once there is time again. A lever exists where the world can pull it and it would help.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from worldline.core.config import Lever
from worldline.server.live.playout import Playout

WINDOW: Final = 128  # chunks that figures are of
SETTLED: Final = 8  # chunks with time to spare before a lever is let go
PATIENCE: Final = 2  # chunks between two levers, so that the first can show what it does
BEHIND: Final = 1.0  # real-time factor from which a lever is pulled
SPARE: Final = 0.8  # and below which it is let go
WORTH: Final = 0.05  # share of a chunk's length that encoding must take to be worth saving


class Cost(NamedTuple):
    """What one chunk took, in seconds: `need` from its start to when the last of its pictures would
    still have come in time, `waited` of that for the device; `work` without the governor's wait,
    `encode` in the encoder."""

    need: float
    work: float
    encode: float
    waited: float = 0.0


class Recent:
    """The newest figures of one kind."""

    def __init__(self, size: int = WINDOW) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """Take one in, and the oldest out."""
        self._values.append(value)

    def quantile(self, share: float) -> float:
        """The value that `share` of all do not exceed (nearest rank); 0 when there are none."""
        if not self._values:
            return 0.0
        ranked = sorted(self._values)
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]

    def mean(self, newest: int | None = None) -> float:
        """Of all, or of so many of the newest; 0 when there are none."""
        values = list(self._values)[-(newest or len(self._values)) :]
        return sum(values) / len(values) if values else 0.0


class Governor:
    """One world's. Times are seconds of the server's clock; asks nobody, waits for nothing."""

    def __init__(
        self,
        playout: Playout,
        *,
        chunk_s: float,
        lead_s: float,
        restart_s: float = 0.0,
        levers: Iterable[Lever] = (),
    ) -> None:
        self.playout = playout
        self.lead_s = lead_s
        self.misses = 0
        self._chunk_s = chunk_s
        self._restart_s = restart_s
        self._offered: tuple[Lever, ...] = tuple(dict.fromkeys(levers))
        self._pulled: list[Lever] = []
        self._needs, self._alone = Recent(), Recent()
        self._works, self._encodes = Recent(), Recent()
        self._spare_for = 0
        self._since = PATIENCE
        self._late = False

    @property
    def levers(self) -> tuple[Lever, ...]:
        """Those pulled now, in the order they were given."""
        return tuple(lever for lever in self._offered if lever in self._pulled)

    @property
    def real_time_factor(self) -> float:
        """Work per chunk over its playing time, of the recent ones; below 1 keeps up."""
        return self._works.mean(8) / self._chunk_s

    def need_s(self, others_s: float = 0.0) -> float:
        """What to allow a chunk: p99 of what chunks took, or of what they took alone and a turn of
        everybody else who uses the device, whichever is longer. At most as long as a chunk plays,
        and that while nobody knows.
        """
        if not self._needs:
            return self._chunk_s
        need = max(self._needs.quantile(0.99), self._alone.quantile(0.99) + others_s)
        return min(need, self._chunk_s)

    def start_at(self, now: float, *, others_s: float = 0.0) -> float:
        """When the next chunk should start; `now` or before for at once."""
        dry = self.playout.dry_at()
        if dry is None:
            return now
        return dry - self.lead_s - self.playout.margin_s - self.need_s(others_s)

    def deadline(self, now: float) -> float:
        """When the pictures of a chunk that starts now are missed."""
        dry = self.playout.dry_at()
        return now + self._chunk_s if dry is None else dry

    def may_restart(self, started: float, now: float) -> bool:
        """Whether a chunk begun at `started` may be begun anew: it would be in time all the same,
        or so little is lost that the settings allow it."""
        if self._restart_s <= 0:
            return False
        dry = self.playout.dry_at()
        in_time = dry is not None and now + self._needs.quantile(0.99) <= dry
        return in_time or now - started <= self._restart_s

    def shown(self, first: int, end: int, now: float) -> None:
        """Pictures leave at `now`; a chunk before which the queue ran dry missed its deadline."""
        if self.playout.shown(first, end, now) > 0 and not self._late:
            self.misses += 1
            self._late = True

    def finished(self, cost: Cost, *, counts: bool = True) -> None:
        """A chunk has left. One that is no measure of the next ones (the first) does not count."""
        self.playout.chunk()
        if counts:
            self._needs.add(cost.need)
            self._alone.add(cost.need - cost.waited)
            self._works.add(cost.work)
            self._encodes.add(cost.encode)
            self._adjust()
        self._late = False

    def _adjust(self) -> None:
        factor = self._works.mean(PATIENCE) / self._chunk_s
        behind = self._late or factor > BEHIND
        self._spare_for = self._spare_for + 1 if factor < SPARE and not self._late else 0
        self._since += 1
        if behind and self._since >= PATIENCE:
            helpful: list[Lever] = [lever for lever in self._offered if self._helps(lever)]
            if helpful:
                self._pulled.append(helpful[0])
                self._since = 0
        elif self._spare_for >= SETTLED and self._pulled:
            self._pulled.pop()
            self._since = self._spare_for = 0

    def _helps(self, lever: Lever) -> bool:
        if lever in self._pulled:
            return False
        return lever != "encode_quality" or self._encodes.mean(PATIENCE) >= WORTH * self._chunk_s
