"""Where a viewer would be: a program reads frames at once, yet the server paces for an eye.

Pure. In real time the playhead moves on at the film's rate, never past what was handed out and
never past what came; otherwise it is simply what was handed out, and the server hurries.
"""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """A frame's running number, and the milliseconds of video queued ahead of it."""

    frame: int
    lead_ms: float


class Player:
    """Frames by number, time in ms of our clock."""

    def __init__(self, *, fps: float, realtime: bool) -> None:
        self._fps = fps
        self._realtime = realtime
        self._at: float | None = None  # the playhead, in frames
        self._moved_ms = 0.0
        self._arrived = 0
        self._handed = 0
        self._starved = False
        self.stalls = 0

    def arrived(self, number: int, now_ms: float) -> None:
        """A frame came."""
        self._move(now_ms)
        if self._at is None:
            self._at, self._moved_ms, self._handed = float(number), now_ms, number
        self._arrived = max(self._arrived, number)
        self._starved = False

    def handed(self, number: int, now_ms: float) -> None:
        """A frame was given to the program."""
        self._handed = number
        self._move(now_ms)

    def position(self, now_ms: float) -> Position:
        """Where it is now."""
        self._move(now_ms)
        at = self._at or 0.0
        return Position(int(at), max(0.0, (self._arrived - at) * 1000.0 / self._fps))

    def lost(self) -> None:
        """The stream broke off; it begins anew with the next frame."""
        self._at, self._arrived, self._starved = None, 0, False

    def _move(self, now_ms: float) -> None:
        if self._at is None:
            return
        end = float(min(self._handed, self._arrived))
        if not self._realtime:
            self._at = end
            return
        wanted = self._at + (now_ms - self._moved_ms) * self._fps / 1000.0
        self._moved_ms = now_ms
        if wanted > self._arrived + 1 and not self._starved:
            self._starved = True
            self.stalls += 1
        self._at = max(self._at, min(wanted, end))
