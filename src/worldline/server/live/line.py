"""The queue before the seats: first come, first served, and everybody knows the own place."""

from __future__ import annotations


class Line:
    """Ids that wait, each once, in the order they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: dict[str, None] = {}
        self._first: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, name: object) -> bool:
        return name in self._waiting

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self._waiting) >= self.limit

    def join(self, name: str) -> None:
        """Go to the end."""
        assert name not in self._waiting, f"{name} already waits"
        assert not self.full, f"the line of {self.limit} is full"
        self._waiting[name] = None

    def join_first(self, name: str) -> None:
        """Go to the front, after others who did; who had a seat always finds a place."""
        assert name not in self._waiting, f"{name} already waits"
        self._first.add(name)
        ahead = [other for other in self._waiting if other in self._first]
        behind = [other for other in self._waiting if other not in self._first]
        self._waiting = dict.fromkeys([*ahead, name, *behind])

    def leave(self, name: str) -> bool:
        """Step out, wherever one stands; False when it did not wait."""
        if name not in self._waiting:
            return False
        del self._waiting[name]
        self._first.discard(name)
        return True

    def places(self) -> dict[str, int]:
        """Position of everybody, 1 is next."""
        return {name: place for place, name in enumerate(self._waiting, start=1)}
