"""Who takes how many bytes: of the device while open, of the host while parked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from worldline.core.errors import CapacityError


class Ledger:
    """Sessions by id. `room` bytes of the device are for them; None where nobody has planned."""

    def __init__(self, room: int | None = None, every: Callable[[bool], bool] = bool) -> None:
        """`every` tells whether all ranks have room, given whether this one has."""
        self.room = room
        self._every = every
        self._open: dict[str, int] = {}
        # Bytes there, tensor by tensor, and bytes it will take again.
        self._parked: dict[str, tuple[Mapping[int, int], int]] = {}

    @property
    def open_bytes(self) -> int:
        """Planned bytes of all sessions on the device."""
        return sum(self._open.values())

    @property
    def parked_bytes(self) -> int:
        """Bytes that parked sessions take of the host; what branches share counts once."""
        tensors: dict[int, int] = {}
        for there, _ in self._parked.values():
            tensors.update(there)
        return sum(tensors.values())

    def __len__(self) -> int:
        return len(self._open) + len(self._parked)

    def bytes_of(self, session_id: str) -> Mapping[int, int]:
        """What a parked session takes of the host, by tensor."""
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

    def park(self, session_id: str, there: Mapping[int, int]) -> None:
        """It takes `there` of the host now, bytes by tensor, and nothing of the device."""
        again = self._open.pop(session_id, None)
        self._parked[session_id] = there, self._parked[session_id][1] if again is None else again

    def enter(self, session_id: str, there: Mapping[int, int], planned: int) -> None:
        """One that is parked from the first, and will take `planned` bytes of the device."""
        self._parked[session_id] = there, planned

    def planned(self, session_id: str) -> int:
        """What a session takes of the device, or will take."""
        if session_id in self._open:
            return self._open[session_id]
        return self._parked[session_id][1]

    def unpark(self, session_id: str) -> None:
        """It is to come back; raises `CapacityError` where it does not fit, and it stays away."""
        self.admit(session_id, self._parked[session_id][1])
        del self._parked[session_id]

    def close(self, session_id: str) -> None:
        """It takes nothing any more."""
        self._open.pop(session_id, None)
        self._parked.pop(session_id, None)
