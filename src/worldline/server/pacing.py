"""Output pacing: when a chunk may leave, so that frames arrive at the rate they are played."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """The schedule after `next_send` (clock seconds); `event_id` is the newest one seen."""

    next_send: float
    event_id: int | None = None


def wait_for(pace: Pace, now: float, event_id: int | None) -> tuple[Pace, float]:
    """The pace at `now`, and the seconds to wait before sending.

    A chunk that shows a new input pulls the schedule forward to now: it is not held back.
    """
    if event_id is not None and event_id != pace.event_id:
        pace = Pace(min(pace.next_send, now), event_id)
    return pace, max(0.0, pace.next_send - now)


def after_sending(pace: Pace, started: float, frames: int, fps: float) -> Pace:
    """The pace once `frames` were sent from `started` on, to be played at `fps`."""
    return pace._replace(next_send=max(pace.next_send, started) + frames / fps)
