"""A recorded walk as what each chunk is asked for, read forwards; the file stays packed."""

from __future__ import annotations

from collections.abc import Iterator

from worldline.core.tape import tape
from worldline.core.walk import Stepped, WorldFile


def steps_of(file: WorldFile) -> Iterator[Stepped]:
    """Every chunk, its controls as motions. Raises: ControlError for poses that are no path."""
    for chunk, motions in zip(file.chunks(), tape(file), strict=True):
        yield chunk._replace(motions=motions, actions=None, poses=None, digest=b"")


class Tape:
    """Asked for one chunk after the other; one that was given up may be asked for again."""

    def __init__(self, file: WorldFile) -> None:
        self._steps = steps_of(file)
        self._place = -1
        self._now: Stepped | None = None

    def at(self, place: int) -> Stepped | None:
        """What chunk `place` was asked for; None behind the end."""
        assert place in (self._place, self._place + 1), f"{place} after {self._place}"
        if place > self._place:
            self._place, self._now = place, next(self._steps, None)
        return self._now
