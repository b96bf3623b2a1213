"""One connection as the house and its rooms see it: a viewer, whose it is, and how it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from worldline.core.clock import Clock
from worldline.core.errors import WorldlineError
from worldline.core.live.codes import ByeCode, Close, bye, close_of, failure
from worldline.core.live.server import Bye, Failure, ServerMessage
from worldline.server.live.viewer import Viewer

if TYPE_CHECKING:
    from worldline.server.live.room import Room


class Ending(NamedTuple):
    """The last message of a connection, and the close code after it."""

    message: Bye | Failure
    code: Close


def ending(reason: WorldlineError | ByeCode, *, retry_after_ms: int | None = None) -> Ending:
    """How a connection ends that is over for `reason`."""
    if isinstance(reason, str):
        return Ending(bye(reason), close_of(reason))
    if retry_after_ms is None:
        return Ending(failure(reason, fatal=True), close_of(reason))
    told = failure(reason, fatal=True, retry_after_ms=retry_after_ms)
    return Ending(told, close_of(reason))


class Guest:
    """A connection after `hello`. `client` is whom the limits per client count."""

    def __init__(self, viewer: Viewer, client: str, clock: Clock) -> None:
        self.viewer = viewer
        self.client = client
        self.outside = clock.now()  # since when it has no room, in seconds of the clock
        self.moved = asyncio.Event()  # into a room, or out of one
        self._clock = clock
        self._room: Room | None = None
        self.refusals = 0  # of what it said while it had no world
        self.over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def id(self) -> str:
        """The name of the viewer."""
        return self.viewer.id

    @property
    def room(self) -> Room | None:
        """The world it is in, or waits for."""
        return self._room

    @room.setter
    def room(self, room: Room | None) -> None:
        if room is None:
            self.outside = self._clock.now()
        self._room = room
        self.moved.set()

    def send(self, message: ServerMessage) -> None:
        """Put a message on its way; never waits."""
        self.viewer.send(message)

    def end(self, how: Ending) -> None:
        """Let the connection close after what was sent so far; the first ending counts."""
        if not self.over.done():
            self.over.set_result(how)
