"""How the world of one room founds another: what `beginning.Family` asks, at the house's desk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldline.server.live.beginning import Fork

if TYPE_CHECKING:
    from worldline.server.live.room import Room
    from worldline.server.live.seams import Desk


class RoomFamily:
    """Of one room."""

    def __init__(self, room: Room, desk: Desk) -> None:
        self._room = room
        self._desk = desk

    def reserve(self) -> str:
        """See `beginning.Family`."""
        return self._desk.reserve(self._room)

    def found(self, name: str, fork: Fork) -> str:
        """See `beginning.Family`."""
        return self._desk.found(self._room, name, fork)

    def give_up(self, name: str) -> None:
        """See `beginning.Family`."""
        self._desk.give_up(name)
