"""How a session founds a branch: what `beginning.Family` asks, at the house's desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from worldline.core.live.client import Enter
from worldline.server.live.beginning import Fork

if TYPE_CHECKING:
    from worldline.server.live.seams import Desk


class Parent(NamedTuple):
    """What a branch has of its world: how it was entered, whose it is, its start picture."""

    enter: Enter
    client: str
    picture: bytes


class DeskFamily:
    """Of one session; `parent` is asked when a branch is founded."""

    def __init__(self, desk: Desk, parent: Callable[[], Parent]) -> None:
        self._desk = desk
        self._parent = parent

    def reserve(self) -> str:
        """See `beginning.Family`."""
        return self._desk.reserve(self._parent().client)

    def found(self, name: str, fork: Fork) -> str:
        """See `beginning.Family`."""
        enter, client, picture = self._parent()
        return self._desk.found(name, fork, enter=enter, client=client, picture=picture)

    def give_up(self, name: str) -> None:
        """See `beginning.Family`."""
        self._desk.give_up(name)
