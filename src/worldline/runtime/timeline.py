"""What a session was: every chunk as it was committed, and some places it can go back to at once.

A `Record` of a chunk is small: clean latents, controls, words. Context passes over the records from
a place whose bits are known give the bits of every later place. A `Moment` is such a place: all of
the session before one chunk, bit for bit, its frames shared with the moments around it. The start
of the walk is one too and costs nothing.

Both live in host memory, within `limit` bytes, of which moments may get less. What is too much
leaves like this: moments first, the denser the older, so that from wherever one goes back to the
last moment is not far; then the oldest records, except those that the next chunk reaches back to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from worldline.core.snapshot import LightPrompt, Reach
from worldline.runtime.conditions import Moved

if TYPE_CHECKING:
    from worldline.runtime.moment import Moment


class Record(NamedTuple):
    """A chunk as it was committed; `latents` `[1, 16, T, h, w]` are clean, on the host."""

    frames: range
    latents: Tensor
    motion: Moved
    prompt: LightPrompt
    anchor: int
    sink_shift: int

    @property
    def chunk(self) -> int:
        """Which chunk it is."""
        return self.frames.start // len(self.frames)


class Timeline:
    """Of one session; `limit` in bytes. With `moments` off only records are kept."""

    def __init__(self, reach: Reach, limit: int, *, moments: bool = True) -> None:
        self.reach, self.limit = reach, limit
        self.keeps_moments = moments and limit > 0
        self._records: dict[int, Record] = {}
        self._moments: dict[int, Moment] = {}
        self._holders: Counter[int] = Counter()  # moments that hold each thing
        self._held: dict[int, int] = {}  # bytes of each
        self.record_bytes = self.moment_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> tuple[Record, ...]:
        """All that are there, oldest first."""
        return tuple(self._records.values())

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All that are there, oldest first."""
        return tuple(self._moments.values())

    @property
    def last(self) -> Record | None:
        """The chunk before the present."""
        return self.records[-1] if self._records else None

    @property
    def held(self) -> Mapping[int, int]:
        """Bytes of everything that moments hold, each thing once; see `Moment.parts`."""
        return self._held

    def needed(self, chunk: int) -> list[Record]:
        """Those that a session before `chunk` reaches back to; not all may be there."""
        end = chunk * self.reach.chunk
        return [r for i, r in self._records.items() if i < chunk and self.reach.has(i, end)]

    def between(self, first: int, chunk: int) -> list[Record] | None:
        """The records from chunk `first` up to before `chunk`, if all are there."""
        if any(i not in self._records for i in range(first, chunk)):
            return None
        return [self._records[i] for i in range(first, chunk)]

    def moment_before(self, chunk: int) -> Moment | None:
        """The last moment that is not later."""
        places = [place for place in self._moments if place <= chunk]
        return self._moments[max(places)] if places else None

    def append(self, record: Record) -> None:
        """One more chunk was made."""
        self._records[record.chunk] = record
        self.record_bytes += record.latents.nbytes
        end = (record.chunk + 1) * self.reach.chunk
        while self.record_bytes > self.limit:
            oldest = next((i for i in self._records if not self.reach.has(i, end)), None)
            if oldest is None:
                break
            self.record_bytes -= self._records.pop(oldest).latents.nbytes

    def keep(self, moment: Moment, room: int) -> None:
        """Keep the newest moment, at the price of others; `room` bytes are for all of them."""
        assert all(place < moment.next_chunk for place in self._moments), "the newest"
        self._moments[moment.next_chunk] = moment
        for part, nbytes in moment.parts():
            self._holders[part] += 1
            if part not in self._held:
                self._held[part] = nbytes
                self.moment_bytes += nbytes
        room = min(room, self.limit - self.record_bytes)
        while self._moments and self.moment_bytes > room:
            self._drop(_least_missed(list(self._moments)))

    def knows(self, chunk: int) -> bool:
        """Whether there is a moment of that place."""
        return chunk in self._moments

    def cut(self, chunk: int) -> None:
        """Forget what came after the place before `chunk`."""
        for index in [i for i in self._records if i >= chunk]:
            self.record_bytes -= self._records.pop(index).latents.nbytes
        for place in [i for i in self._moments if i > chunk]:
            self._drop(place)

    def forget_moments(self) -> None:
        """Keep the records only."""
        for place in list(self._moments):
            self._drop(place)

    def copy(self) -> Timeline:
        """Another one that knows the same."""
        made = Timeline(self.reach, self.limit, moments=self.keeps_moments)
        made._records, made._moments = dict(self._records), dict(self._moments)
        made._holders, made._held = Counter(self._holders), dict(self._held)
        made.record_bytes, made.moment_bytes = self.record_bytes, self.moment_bytes
        return made

    def clear(self) -> None:
        """Forget everything: another walk begins."""
        self._records.clear()
        self._moments.clear()
        self._holders.clear()
        self._held.clear()
        self.record_bytes = self.moment_bytes = 0

    def _drop(self, place: int) -> None:
        for part, _ in self._moments.pop(place).parts():
            self._holders[part] -= 1
            if not self._holders[part]:
                del self._holders[part]
                self.moment_bytes -= self._held.pop(part)


def _least_missed(places: list[int]) -> int:
    """Which of some rising places to forget; the newest one last.

    The one whose loss makes the shortest gap for its age: near the present places stay dense.
    """
    newest = places[-1]
    gaps = {
        place: (after - before) / (newest - place + 1)
        for before, place, after in zip([0, *places], places, places[1:], strict=False)
    }
    return min(gaps, key=gaps.__getitem__, default=newest)
