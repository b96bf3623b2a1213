"""Which state may follow which."""

from __future__ import annotations

from typing import get_args

import pytest

from worldline.core.live.shared import State
from worldline.core.states import FOLLOWING, follow, may_follow


def test_every_state_is_listed_and_reachable_and_can_close() -> None:
    states = set(get_args(State))
    assert set(FOLLOWING) == states
    seen: set[State] = {"queued"}
    queue: list[State] = ["queued"]
    while queue:
        for after in FOLLOWING[queue.pop()] - seen:
            seen.add(after)
            queue.append(after)
    assert seen == states
    assert all(may_follow(state, "closed") for state in states - {"closed"})


def test_nothing_follows_closed() -> None:
    assert not any(may_follow("closed", state) for state in FOLLOWING)
    with pytest.raises(AssertionError, match="closed to live"):
        follow("closed", "live")


def test_a_world_does_not_open_twice() -> None:
    assert follow("opening", "live") == "live"
    assert not may_follow("live", "opening")
    assert not may_follow("draining", "live")
