"""How the ranks of a group do the same: rank 0 tells the others whatever it is about to do.

Calls reach rank 0 only. It passes each on, byte for byte, before it answers it, and so it does with
what it decides by itself: to move a piece of a session, and to prepare the next chunk. The others
do nothing else, in that order. Nothing here needs a device or a collective; pipes carry it. What is
decided within a chunk (whether it is still wanted) the engine's group agrees on. Torch-free.
"""

from __future__ import annotations

import enum
import queue
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldline.runtime import protocol
from worldline.runtime.progress import NoStamps, Stamps
from worldline.runtime.protocol import Call, SlotRef
from worldline.runtime.shm import SlotWriter


class Order(enum.Enum):
    """What rank 0 says beside calls; one byte each, with which no call begins."""

    MOVE = b"m"  # advance the moves by a piece
    PREPARE = b"p"  # do what the next chunk will need


_ORDERS = {order.value: order for order in Order}
Item = Call | Order


class Slots(Protocol):
    """Where the pictures of a session go; `shm.SlotWriter` is one."""

    def __len__(self) -> int: ...

    def write(self, ref: SlotRef, frames: NDArray[np.uint8], *, first: int = 0) -> None:
        """Copy frames into the slot."""
        ...

    def aborted(self, ref: SlotRef) -> bool:
        """Whether the parent wants the chunk no more."""
        ...

    def close(self) -> None:
        """Let go of all of it."""
        ...


class Part:
    """What being a rank means for the sessions it holds. This one is alone."""

    def __init__(self, rank: int = 0, size: int = 1, *, stamps: Stamps | None = None) -> None:
        self.rank, self.size = rank, size
        self.stamps = stamps or NoStamps()

    def slots(self) -> Slots:
        """For the pictures of one session."""
        return SlotWriter()

    def order(self, item: Item) -> None:
        """Tell the other ranks what this one does next."""


class Leader(Part):
    """Rank 0 of several."""

    def __init__(self, pipes: Sequence[Connection], *, stamps: Stamps | None = None) -> None:
        """`pipes` lead to the other ranks, in order."""
        super().__init__(0, len(pipes) + 1, stamps=stamps)
        self._pipes = pipes

    def order(self, item: Item) -> None:
        """See `Part`."""
        data = protocol.encode(item) if isinstance(item, Call) else item.value
        self.stamps.begin("telling the other ranks")
        self.stamps.fed()
        for pipe in self._pipes:
            pipe.send_bytes(data)


class _Nowhere:
    """Slots of a rank whose pictures nobody needs."""

    def __len__(self) -> int:
        return 0

    def write(self, ref: SlotRef, frames: NDArray[np.uint8], *, first: int = 0) -> None:
        """Leave it."""

    def aborted(self, ref: SlotRef) -> bool:
        """Not this rank's to know."""
        return False

    def close(self) -> None:
        """There is nothing."""


class Follower(Part):
    """A rank that does as it is told."""

    def __init__(
        self,
        rank: int,
        size: int,
        *,
        orders: queue.SimpleQueue[Item],
        stamps: Stamps | None = None,
    ) -> None:
        """`orders` is filled by the thread that reads rank 0's pipe."""
        super().__init__(rank, size, stamps=stamps)
        self._orders = orders

    def next(self) -> Item:
        """Wait for the next order."""
        self.stamps.wait()
        item = self._orders.get()
        self.stamps.took()
        return item

    def slots(self) -> Slots:
        """See `Part`."""
        return _Nowhere()


def read_item(data: bytes) -> Item:
    """What rank 0 has said."""
    order = _ORDERS.get(data)
    return protocol.decode_call(data) if order is None else order
