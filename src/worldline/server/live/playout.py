"""How much video the one with the controls has queued, and when it runs dry; pure.

What is on screen is followed from the client's reports, and between them by time: picture `n` is
due `(n - frame) / fps` after the report that said `frame` was on screen. Without reports it is
followed from what was shown alone. Pictures on their way count as queued; how long the way is shows
in the stalls that are reported, and those widen the margin.
"""

from __future__ import annotations

from typing import Final

MARGIN_S: Final = 0.02
GROWTH: Final = 1.5
DECAY: Final = 0.98  # of the margin, per chunk without a stall
ENOUGH: Final = (
    1.2  # times the margin at which the screen stood still: less is not tried again soon
)
FORGET: Final = 0.9995  # of what is enough, per chunk


class Playout:
    """Times are seconds of the server's clock, pictures are running numbers."""

    def __init__(self, fps: float, chunk_s: float) -> None:
        self._fps = fps
        self._chunk_s = chunk_s
        self._end = self._made = 0
        self._anchor: tuple[float, int] | None = None  # when which picture was on screen
        self._stalls: int | None = None
        self._stalled = self._was_late = False
        self._margin_s = self._least_s = MARGIN_S

    @property
    def margin_s(self) -> float:
        """Seconds to keep beyond what was measured, for the way to the client."""
        return self._margin_s

    def dry_at(self) -> float | None:
        """When all that is made has been played; None while nothing is on screen."""
        return self._played(max(self._made, self._end))

    def lead_s(self, now: float) -> float:
        """Seconds of video queued at `now`."""
        dry = self._played(self._end)
        return 0.0 if dry is None else max(0.0, dry - now)

    def made(self, end: int) -> None:
        """Pictures up to `end` (without) are made, and will be shown in a moment."""
        self._made = end

    def shown(self, first: int, end: int, now: float) -> float:
        """Pictures `first` to `end` (without) leave at `now`; by how many seconds they are late."""
        dry = self._played(self._end)
        late = 0.0 if dry is None else max(0.0, now - dry)
        if dry is None or late:
            self._anchor = now, first  # the screen stood still and goes on with these
        self._was_late = self._was_late or late > 0
        self._end = end
        return late

    def report(self, frame: int, stalls: int, now: float) -> None:
        """Picture `frame` is on screen at `now`, which has stood still `stalls` times.

        A picture that was never sent is no report.
        """
        if frame >= self._end:
            return
        ours = self._was_late or self.lead_s(now) <= 0  # we were too slow, not the way too long
        self._anchor, self._was_late = (now, frame), False
        if self._stalls is not None and stalls > self._stalls and not ours:
            self._stalled = True
            self._least_s = min(self._margin_s * ENOUGH, self._chunk_s)
            self._margin_s = min(self._margin_s * GROWTH, self._chunk_s)
        self._stalls = stalls

    def chunk(self) -> None:
        """A chunk has ended; the margin shrinks again when nothing stood still during it, but for
        a long time not to where something did."""
        self._least_s = max(MARGIN_S, self._least_s * FORGET)
        if not self._stalled:
            self._margin_s = max(self._least_s, self._margin_s * DECAY)
        self._stalled = False

    def stop(self) -> None:
        """The screen stands still on purpose, and begins anew with the next picture."""
        self._anchor = None

    def leave(self) -> None:
        """Forget what this client reported: another one has the controls."""
        self._stalls, self._stalled = None, False
        self._margin_s = self._least_s = MARGIN_S

    def _played(self, end: int) -> float | None:
        if self._anchor is None:
            return None
        when, frame = self._anchor
        return when + (end - frame) / self._fps
