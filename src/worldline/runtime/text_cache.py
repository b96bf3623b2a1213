"""Text states by prompt, shared by all sessions of a world: the text encoder runs once per prompt.

Least recently used prompts leave first. States are handed out by reference; one that somebody wrote
into is encoded again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from worldline.runtime.text_rows import true_rows

CAPACITY = 64


class Text(NamedTuple):
    """States `[1, S, C]` of a prompt, zero from row `rows` on."""

    states: Tensor
    rows: int


class _Entry(NamedTuple):
    text: Text
    version: int


class TextCache:
    """At most `capacity` prompts; `encoded` counts how often the encoder really ran."""

    def __init__(self, encode: Callable[[str], Tensor], *, capacity: int = CAPACITY) -> None:
        self._encode = encode
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.encoded = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._entries

    def get(self, prompt: str) -> Text:
        """Text states of `prompt`; do not write into them."""
        entry = self._entries.get(prompt)
        if entry is None or entry.text.states._version != entry.version:
            states = self._encode(prompt)
            self.encoded += 1
            entry = _Entry(Text(states, true_rows(states)), states._version)
            self._entries[prompt] = entry
        self._entries.move_to_end(prompt)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return entry.text
