"""The states of a live world and which may follow which; pure.

    queued -> opening -> live <-> paused
                          |  \\    /  |
                          |   parked  |
                          +- draining -+-> closed

Every state may close. Nothing follows `closed`. A state that changes to itself is no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from worldline.core.live.shared import State

FOLLOWING: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        "queued": frozenset({"opening", "closed"}),
        "opening": frozenset({"live", "draining", "closed"}),
        "live": frozenset({"paused", "parked", "draining", "closed"}),
        "paused": frozenset({"live", "parked", "draining", "closed"}),
        "parked": frozenset({"live", "paused", "draining", "closed"}),
        "draining": frozenset({"closed"}),
        "closed": frozenset(),
    }
)


def may_follow(before: State, after: State) -> bool:
    """Whether a world in state `before` may become `after`."""
    return after in FOLLOWING[before]


def follow(before: State, after: State) -> State:
    """`after`; asserts that it may follow, because a world that breaks this is our bug."""
    assert may_follow(before, after), f"a world cannot go from {before} to {after}"
    return after
