"""The keys held here; pure. A message is made only when something changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast, get_args

from worldline.core.errors import ControlError
from worldline.core.live.shared import Action

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)


def check_actions(keys: Iterable[str]) -> tuple[Action, ...]:
    """The same keys, known to be actions. Raises: ControlError."""
    found = tuple(keys)
    for key in found:
        if key not in ACTIONS:
            raise ControlError("no such action", expected=" ".join(ACTIONS), got=key)
    return cast("tuple[Action, ...]", found)


class Hand:
    """Which keys are down, in the order in which they were pressed."""

    def __init__(self) -> None:
        self.held: tuple[Action, ...] = ()

    def press(self, keys: tuple[Action, ...]) -> bool:
        """Hold these too; whether that changes anything."""
        return self._hold((*self.held, *keys))

    def release(self, keys: tuple[Action, ...]) -> bool:
        """Let go of these, or of all when none is named; whether that changes anything."""
        return self._hold(key for key in self.held if keys and key not in keys)

    def forget(self) -> None:
        """The server released everything."""
        self.held = ()

    def _hold(self, keys: Iterable[Action]) -> bool:
        before, self.held = self.held, tuple(dict.fromkeys(keys))
        return self.held != before
