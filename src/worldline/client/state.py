"""What can be known of a world without waiting; the same for both kinds of world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from worldline.client.address import Address
from worldline.client.clock_sync import ClockSync
from worldline.client.conversation import Conversation
from worldline.client.picture import Picture, html_of
from worldline.core.errors import SessionClosedError
from worldline.core.live.server import (
    Chunk,
    ControlOf,
    Moment,
    Opened,
    Ready,
    Recording,
    Rewound,
    Traced,
)
from worldline.core.live.shared import State

T = TypeVar("T")


class Known:
    """Read-only; everything here is the newest that arrived."""

    def __init__(self, talk: Conversation, address: Address) -> None:
        self._talk = talk
        self._address = address
        self._newest: Picture | None = None

    @property
    def ready(self) -> Ready:
        """The server: its model, limits and formats. Raises: SessionClosedError before it spoke."""
        return self._need(self._talk.ready)

    @property
    def opened(self) -> Opened:
        """The world as it is. Raises: SessionClosedError before it opened."""
        return self._need(self._talk.opened)

    @property
    def id(self) -> str:
        """What `watch` takes: may be shared."""
        return self._need(self._talk.seat).world

    @property
    def token(self) -> str | None:
        """What `rejoin` takes: a secret. None for a spectator."""
        return self._talk.token

    @property
    def state(self) -> State:
        """queued, opening, live, paused, parked, draining or closed."""
        return "closed" if self._talk.over else self._talk.state

    @property
    def position(self) -> int:
        """Place in the queue, 1 is next; 0 with a seat."""
        return self._talk.queued.position if self._talk.queued is not None else 0

    @property
    def stats(self) -> Chunk | None:
        """Where the time of the newest chunk went."""
        return self._talk.stats

    @property
    def control(self) -> ControlOf | None:
        """Who holds the controls."""
        return self._talk.control

    @property
    def recording(self) -> Recording | None:
        """The newest that was said about a recording."""
        return self._talk.recording

    @property
    def traced(self) -> Traced | None:
        """The newest that was said about a trace."""
        return self._talk.traced

    @property
    def moments(self) -> Sequence[Moment]:
        """Thumbnails of the walk so far, about one a second, for who has the controls."""
        return tuple(self._talk.timeline.moments)

    @property
    def rewound(self) -> Rewound | None:
        """Where the walk went back to last."""
        return self._talk.timeline.rewound

    @property
    def clock(self) -> ClockSync:
        """The server's clock against ours."""
        return self._talk.clock_sync

    @property
    def newest(self) -> Picture | None:
        """The frame that was handed out last."""
        return self._newest

    @property
    def stalls(self) -> int:
        """How often an eye that watches in real time would have waited."""
        return self._talk.stalls

    @property
    def waiting(self) -> int:
        """Frames that came and were not handed out yet."""
        return len(self._talk.frames)

    def url(self, path: str) -> str:
        """The full address of a relative one, as in `recording.url`."""
        return self._address.http(path)

    def _need(self, value: T | None) -> T:
        if value is None:
            raise SessionClosedError("the world is not open", got=self.state)
        return value

    def __repr__(self) -> str:
        world = self._talk.seat.world if self._talk.seat is not None else "-"
        return f"{type(self).__name__}({world}, {self.state})"

    def _repr_html_(self) -> str:
        picture = html_of(self.newest) if self.newest is not None else "no frame yet"
        return f"<div>{picture}<br><small>{self.state}</small></div>"
