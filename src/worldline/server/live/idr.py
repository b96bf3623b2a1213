"""When the shared H.264 of a world gets a key frame (IDR); pure.

A key frame costs every viewer bits, so nobody gets one alone. Who sees nothing at all (a viewer
that has just come, a decoder that lost its thread) is *urgent*: a forced key frame, at most one a
second per world. Who only waits to come back to the stream is *patient*: the next scheduled one, at
least two seconds after the last key frame of any kind, and only if somebody waits.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FORCED_S: Final = 1.0
SCHEDULED_S: Final = 2.0
PLEA_S: Final = 5.0


class KeyFrames(NamedTuple):
    """What one world remembers: the times (seconds) of its last and its last forced key frame."""

    last: float | None = None
    forced: float | None = None


def decide(state: KeyFrames, now: float, *, urgent: bool, patient: bool) -> tuple[KeyFrames, bool]:
    """Whether the picture encoded now is a key frame; the first of a stream always is."""
    if state.last is None:
        return KeyFrames(now, state.forced), True
    if urgent and (state.forced is None or now - state.forced >= FORCED_S):
        return KeyFrames(now, now), True
    if (urgent or patient) and now - state.last >= SCHEDULED_S:
        return KeyFrames(now, state.forced), True
    return state, False


def restarted(state: KeyFrames) -> KeyFrames:
    """The same world with a new encoder: its first picture is a key frame whatever was before."""
    return KeyFrames(None, state.forced)


class Pleas(NamedTuple):
    """One viewer's cries for a key frame: within five seconds only the first is urgent.

    A broken or hostile decoder that asks all the time costs the others a scheduled one at most.
    """

    last: float | None = None


def plead(state: Pleas, now: float) -> tuple[Pleas, bool]:
    """Whether this cry is urgent."""
    if state.last is not None and now - state.last < PLEA_S:
        return state, False
    return Pleas(now), True
