"""Latent frames of a ring on the host, shared by all who hold the same bits.

A slot of a ring has a `Written` from one write to the next: a chunk that aims at it, a turn of its
keys and a rebuilt history each begin another. A copy is made once for each of them, however many
snapshots, branches and parked sessions have it: copy on write, latent frame by latent frame.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


class Written:
    """What lies in one slot since it was last written."""

    def __init__(self) -> None:
        self._page: weakref.ref[Page] | None = None

    @property
    def page(self) -> Page | None:
        """The copy of it, while anyone has one."""
        return None if self._page is None else self._page()

    def note(self, page: Page) -> None:
        """There is a copy now."""
        self._page = weakref.ref(page)


@dataclass(frozen=True, eq=False)
class Page:
    """A copy of latent frame `frame`: rows `[1, tokens, ...]` of every buffer, never changed."""

    frame: int
    written: Written
    rows: tuple[Tensor, ...]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(row.nbytes for row in self.rows)
