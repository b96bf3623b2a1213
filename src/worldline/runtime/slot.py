"""The name of a piece of shared memory, as it crosses between server and worker."""

from __future__ import annotations

import msgspec


class SlotRef(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of shared memory the parent has set aside: one per chunk in flight.

    `size` bytes of pixels, then one byte that the parent sets when it wants the chunk no more.
    """

    index: int
    name: str
    size: int
