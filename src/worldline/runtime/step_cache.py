"""Named caches: everything is computed once per what it depends on.

One live entry per name; a new key replaces it. An entry also holds its source tensors and their
versions, so a source that was exchanged or written in place is computed again. Holding the source
itself (not its address) rules out that a freed address is taken for the same tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

T = TypeVar("T")


class _Entry(NamedTuple):
    key: Hashable
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    value: Any


class StepCache:
    """Values by name; `computed[name]` counts how often each was really computed.

    Names in `off` (up to a slash: `time/2` belongs to `time`) are computed every time.
    """

    def __init__(self, off: Collection[str] = ()) -> None:
        self._off = frozenset(off)
        self._entries: dict[str, _Entry] = {}
        self.computed: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def get(
        self,
        name: str,
        key: Hashable,
        compute: Callable[[], T],
        *,
        sources: tuple[Tensor, ...] = (),
    ) -> T:
        """Return the value of `name` for `key` and `sources`, computing it if anything changed."""
        if name.partition("/")[0] in self._off:
            self.computed[name] += 1
            return compute()
        entry = self._entries.get(name)
        if entry is not None and entry.key == key and _same(entry, sources):
            return entry.value
        self.drop(name)  # free the old value before the new one is made
        versions = tuple(source._version for source in sources)
        value = compute()
        self.computed[name] += 1
        self._entries[name] = _Entry(key, sources, versions, value)
        return value

    @property
    def keys(self) -> dict[str, Hashable]:
        """What each name was computed for."""
        return {name: entry.key for name, entry in self._entries.items()}

    def keep(self, keys: Mapping[str, Hashable]) -> None:
        """Forget what was computed for other keys than these."""
        for name in [n for n, entry in self._entries.items() if keys.get(n) != entry.key]:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Forget `name`; no error if it is not there."""
        self._entries.pop(name, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def _same(entry: _Entry, sources: tuple[Tensor, ...]) -> bool:
    if len(entry.sources) != len(sources):
        return False
    pairs = zip(entry.sources, entry.versions, sources, strict=True)
    return all(old is new and version == new._version for old, version, new in pairs)
