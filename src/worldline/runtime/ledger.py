"""Who takes how many bytes: of the device while open, of the host while parked."""

from __future__ import annotations

from collections.abc import Callable

from worldline.core.errors import CapacityError


class Ledger:
    """Sessions by id. `room` bytes of the device are for them; None where nobody has planned."""

    def __init__(self, room: int | None = None, every: Callable[[bool], bool] = bool) -> None:
        """`every` tells whether all ranks have room, given whether this one has."""
        self.room = room
        self._every = every
        self._open: dict[str, int] = {}
        self._parked: dict[str, tuple[int, int]] = {}  # bytes there, bytes it will take again

    @property
    def open_bytes(self) -> int:
        """Planned bytes of all sessions on the device."""
        return sum(self._open.values())

    @property
    def parked_bytes(self) -> int:
        """Bytes that parked sessions take of the host."""
        return sum(there for there, _ in self._parked.values())

    def __len__(self) -> int:
        return len(self._open) + len(self._parked)

    def bytes_of(self, session_id: str) -> int:
        """What a parked session takes of the host."""
        return self._parked[session_id][0]

    def admit(self, session_id: str, nbytes: int) -> None:
        """Let a session in that will take so much; raises `CapacityError` where it does not fit."""
        fits = self.room is None or self.open_bytes + nbytes <= self.room
        if not self._every(fits):
            room = 0 if self.room is None else self.room
            raise CapacityError(
                "the device has no memory for another session",
                expected=f"at most {max(0, room - self.open_bytes)} bytes",
                got=nbytes,
            )
        self._open[session_id] = nbytes

    def park(self, session_id: str, there: int) -> None:
        """It takes `there` bytes of the host now, and nothing of the device."""
        self._parked[session_id] = there, self._open.pop(session_id)

    def unpark(self, session_id: str) -> None:
        """It is to come back; raises `CapacityError` where it does not fit, and it stays away."""
        self.admit(session_id, self._parked[session_id][1])
        del self._parked[session_id]

    def close(self, session_id: str) -> None:
        """It takes nothing any more."""
        self._open.pop(session_id, None)
        self._parked.pop(session_id, None)
