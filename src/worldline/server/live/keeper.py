"""Doing things when they are due, on a clock that tests can turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from worldline.server.waiting import AsyncClock, change


class Dated(Protocol):
    """Something with a time on the clock, comparable and hashable."""

    @property
    def at(self) -> float:
        """When it is due."""
        ...


D = TypeVar("D", bound=Dated)


async def keep(
    clock: AsyncClock,
    changed: asyncio.Event,
    *,
    agenda: Callable[[], Sequence[D]],
    act: Callable[[D], None],
) -> None:
    """Do everything on the agenda at its time, each thing once, until cancelled.

    The agenda is asked for again after every wait. Setting `changed` ends a wait early: needed when
    something became due sooner, not when it was put off.
    """
    done: set[D] = set()
    while True:
        dues = agenda()
        done &= set(dues)  # what was put off may be due again
        first = min((due for due in dues if due not in done), key=lambda due: due.at, default=None)
        left = None if first is None else first.at - clock.now()
        if first is not None and left is not None and left <= 0:
            done.add(first)
            act(first)
        else:
            await change(clock, left, changed)
