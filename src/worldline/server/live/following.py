"""How one viewer follows a world: which pictures wait for it, and when it leaves the stream; pure.

A viewer *streams*: every picture of its format waits in a short queue. When the oldest has waited
longer than a chunk lasts, or the queue is full, the viewer is *behind*: the queue is thrown away
and from then on it is shown stills, always of the newest picture, one after the other as it reads
them. Once a still went out within a chunk's time the viewer may come back: pictures that stand
alone (JPEG, WebP, raw) at the next one, H.264 at the next key frame. A viewer that falls behind
again soon waits longer each time: a link too slow for the stream asks for few key frames.

Pictures that were sent and not yet shown count too, where the client reports its playhead: buffers
of the network hide many seconds. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from worldline.core.live.server import Frame
from worldline.core.live.shared import Format
from worldline.core.motion import Pose
from worldline.server.live.idr import Pleas, plead

PENALTY_S: Final = 2.0
MOST_PENALTY_S: Final = 32.0
RELAPSE_S: Final = 10.0
PROBE_S: Final = 1.0
MOST_PICTURES: Final = 96
MOST_BYTES: Final = 32 * 2**20
START: Final = Pose((1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))


class Unit(NamedTuple):
    """One picture ready to go: `message` for a socket, which holds the encoded `payload`.

    `frame` is that message. It is picture `place` of the `places` on the way from the camera pose
    `before` to `pose`.
    """

    number: int
    format: Format
    key: bool
    message: bytes
    payload: bytes
    before: Pose = START
    pose: Pose = START
    place: int = 0
    places: int = 1
    frame: Frame | None = None


class Pace(NamedTuple):
    """What being late means: a chunk lasts `chunk_s`; `ahead` pictures may be sent, not shown."""

    chunk_s: float = 1.0
    ahead: int = 64


class Turn(Enum):
    """What to do when there is nothing to send but a still, or nothing at all."""

    STILL = "still"
    WAIT = "wait"


class Following:
    """One viewer's queue. `chained`: pictures need the ones before them, back to a key frame.

    With `refresh_s` it asks for a scheduled key frame when the last one is older than that.
    """

    def __init__(self, *, chained: bool, pace: Pace, refresh_s: float = float("inf")) -> None:
        self.chained = chained
        self.pace = pace
        self.behind = chained  # a stream is entered at a key frame
        self.urgent = chained
        self.left = 0  # how often it fell behind
        self._ready = True
        self._queue: deque[tuple[Unit, float]] = deque()
        self._bytes = 0
        self._newest = self._still = self._sent = self._shown = -1
        self._reports = False
        self._probed = -PROBE_S
        self._returned = self._may_return = float("-inf")
        self._penalty_s = PENALTY_S
        self._pleas = Pleas()
        self._refresh_s = refresh_s
        self._keyed = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def patient(self, now: float) -> bool:
        """Whether a key frame would be of use: to come back, or because the last one is old."""
        if not self.behind:
            return self.chained and now - self._keyed >= self._refresh_s
        return self.chained and self._ready and now >= self._may_return

    def age(self, now: float) -> float:
        """Seconds that the oldest picture has waited; 0 when none waits."""
        return now - self._queue[0][1] if self._queue else 0.0

    def saw(self, number: int) -> None:
        """Picture `number` exists; a still can be made of it. Counting may begin anew."""
        if number < self._newest:
            self._still = self._sent = self._shown = number - 1
        self._newest = number

    def offer(self, unit: Unit, now: float) -> None:
        """A picture of the stream; kept, or dropped when the viewer is behind."""
        self.saw(unit.number)
        if self.behind and not self._comes_back(unit, now):
            self.urgent = self.urgent and not unit.key  # it had its chance: no second forced one
            return
        if self.behind:
            self.behind = self.urgent = False
            self._returned = now if self.left else self._returned  # coming is no return
        self._keyed = now if unit.key else self._keyed
        self._queue.append((unit, now))
        self._bytes += len(unit.message)
        if self._late(now):
            self.leave(now)

    def take(self, now: float) -> Unit | Turn:
        """What to send next, now that everything before it is written."""
        if self._outruns():
            if now - self._probed < PROBE_S:
                return Turn.WAIT
            if not self.behind:
                self.leave(now)
        if not self.behind and self._late(now):
            self.leave(now)
        if not self.behind:
            return self._pop() if self._queue else Turn.WAIT
        if self._newest <= self._still:
            return Turn.WAIT
        self._still = self._newest
        self._probed = now
        return Turn.STILL

    def wrote(self, number: int, seconds: float) -> None:
        """Picture `number` is written, and it took so long."""
        if self._sent < 0:  # what was reported before is about another stream
            self._shown = max(self._shown, number - 1)
        self._sent = max(self._sent, number)
        if self.behind:
            self._still = max(self._still, number)
            self._ready = seconds <= self.pace.chunk_s

    def shown(self, number: int) -> None:
        """The client reports which picture is on its screen."""
        self._reports = True
        self._shown = min(max(self._shown, number), self._sent)

    def lost(self, now: float) -> None:
        """The client's decoder needs a key frame; until then it gets stills.

        One that is lost again within seconds has a network that loses more than key frames can
        mend: it waits like one that fell behind.
        """
        self._pleas, urgent = plead(self._pleas, now)
        if not self.chained:
            self._clear()
        elif urgent:
            self._clear()
            self.behind = self.urgent = True
            self._may_return = float("-inf")
        elif not self.urgent:
            self.leave(now)
        self._ready = True
        self._shown = self._sent

    def leave(self, now: float) -> None:
        """Fall behind: drop what waits, and come back only after a still was written in time."""
        again = now - self._returned < RELAPSE_S
        self._penalty_s = min(2 * self._penalty_s, MOST_PENALTY_S) if again else PENALTY_S
        self._may_return = now + self._penalty_s if self.chained else now
        self.behind, self._ready = True, False
        self.left += 1
        self._clear()

    def _comes_back(self, unit: Unit, now: float) -> bool:
        if not self._ready or self._outruns() or unit.number <= self._still:
            return False  # the last: a still has shown what came after it
        return unit.key and (self.urgent or now >= self._may_return)

    def _late(self, now: float) -> bool:
        crowded = len(self._queue) > MOST_PICTURES or self._bytes > MOST_BYTES
        return crowded or self.age(now) > self.pace.chunk_s

    def _outruns(self) -> bool:
        return self._reports and self._sent - self._shown > self.pace.ahead

    def _pop(self) -> Unit:
        unit, _ = self._queue.popleft()
        self._bytes -= len(unit.message)
        return unit

    def _clear(self) -> None:
        self._queue.clear()
        self._bytes = 0
