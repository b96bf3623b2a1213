"""What a room needs of its world and of the house, without knowing either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from worldline.core.live.client import Enter, Input, Playhead
from worldline.core.live.server import Moment, Opened, ServerMessage
from worldline.core.live.shared import State

if TYPE_CHECKING:
    from worldline.server.live.beginning import Fork
    from worldline.server.live.guest import Guest
    from worldline.server.live.room import Room


class World(Protocol):
    """What a room needs of `server.live.world.LiveWorld`."""

    @property
    def state(self) -> State:
        """Where it is in its life."""
        ...

    @property
    def opened(self) -> Opened:
        """The world as it is now, for the one who holds the controls."""
        ...

    @property
    def recovering(self) -> bool:
        """Whether its worker died and it waits for another."""
        ...

    @property
    def moments(self) -> Sequence[Moment]:
        """Its timeline, for who takes the controls."""
        ...

    async def open(self) -> Opened:
        """Start it in the engine. Raises: what the engine raises."""
        ...

    async def run(self) -> None:
        """Generate until it is complete. Raises: what the engine raises."""
        ...

    async def close(self, reason: str) -> None:
        """Return once the engine holds nothing of it."""
        ...

    def take(self, message: Input) -> Sequence[ServerMessage]:
        """Fold an input; what to answer. Raises: WorldlineError, and then nothing has changed."""
        ...

    def let_go(self) -> None:
        """Release everything that is held."""
        ...

    def pass_on(self) -> None:
        """`let_go` for somebody else, who begins with the speed and lead of the start."""
        ...

    def playhead(self, report: Playhead, now: float) -> None:
        """Where the holder's screen is."""
        ...

    def pause(self) -> None:
        """Stop after the chunk in flight."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def park(self) -> None:
        """Move to host memory until it goes on."""
        ...

    def drain(self) -> None:
        """Let `run` return after the chunk in flight; what was made is shown."""
        ...


class Desk(Protocol):
    """What a room asks of the house."""

    def new_key(self, room: Room, guest: Guest) -> None:
        """Give a token to who has the controls now."""
        ...

    def reserve(self, client: str) -> str:
        """A seat and a name for a branch. Raises: CapacityError, LimitError, DrainingError."""
        ...

    def found(self, name: str, fork: Fork, *, enter: Enter, client: str, picture: bytes) -> str:
        """The branch stands, of a world that was entered so: the token that opens it."""
        ...

    def give_up(self, name: str) -> None:
        """There will be no such branch; its seat is free."""
        ...

    def claim(self, room: Room) -> bool:
        """Whether the room has its seat, so that its world may go on.

        Otherwise it was lent; the room is first in line now, and `seat_back` will be called.
        """
        ...

    def lend(self, room: Room) -> None:
        """The room's world is in host memory: somebody else may have the seat meanwhile."""
        ...
