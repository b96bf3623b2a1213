"""The bitrate of a world's shared H.264: what its controlling viewer can take; pure.

Only the holder counts. While its pictures wait for more than a quarter of a chunk the bitrate
falls, by a third and at most once per chunk; when it fell behind altogether it is halved. After two
seconds without waiting it rises by a tenth per second, up to what was asked for. Kbit/s, seconds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LEAST: Final = 100
WAITS: Final = 0.25  # of a chunk
FALL: Final = 2 / 3
HALVE: Final = 0.5
RISE: Final = 1.1
CALM_S: Final = 2.0
RISE_EVERY_S: Final = 1.0


class Bitrate(NamedTuple):
    """`kbps` now; when it last changed, when the holder last had to wait, how often it had left."""

    kbps: int
    changed: float = float("-inf")
    waited: float = float("-inf")
    left: int = 0


class Holder(NamedTuple):
    """How the controlling viewer fares: `age` of its oldest waiting picture, times it `left`."""

    age: float = 0.0
    left: int = 0


def follow(state: Bitrate, now: float, holder: Holder, *, chunk_s: float, most: int) -> Bitrate:
    """The bitrate for the next picture, `LEAST` to `most`."""
    least = min(LEAST, most)
    if holder.left > state.left:
        kbps = max(least, round(state.kbps * HALVE))
        return Bitrate(min(kbps, most), now, now, holder.left)
    state = state._replace(left=holder.left, kbps=min(max(state.kbps, least), most))
    if holder.age > WAITS * chunk_s:
        state = state._replace(waited=now)
        if now - state.changed < chunk_s:
            return state
        return state._replace(kbps=max(least, round(state.kbps * FALL)), changed=now)
    calm = now - max(state.waited, state.changed - RISE_EVERY_S) >= CALM_S
    if state.kbps < most and calm and now - state.changed >= RISE_EVERY_S:
        return state._replace(kbps=min(most, round(state.kbps * RISE)), changed=now)
    return state
