"""Frame slots: where the pixels of a chunk cross from the worker to the server without a pipe.

The parent owns every slot: it creates the memory, names it in a step call, and reads it until it
gives the slot back; the worker only maps and writes. A session has a fixed number of slots, so a
slow reader runs out of its own and of nobody else's. A slot that is too small is made anew.

The name in the file system lives only until the first answer that used the slot: then both sides
have it mapped and the parent unlinks it. Whatever process dies afterwards leaves nothing behind;
in the short time before, the parent's exit path or Python's resource tracker removes the name.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import CapacityError, SessionClosedError
from worldline.runtime.protocol import SlotRef

SLOTS_PER_SESSION = 2  # one being written, one being sent


def prefix() -> str:
    """How the names of this process's slots begin; macOS allows 31 characters in all."""
    return f"worldline-{os.getpid()}-"


class _Segment(SharedMemory):
    """Shared memory whose mapping may outlive `close`: a view still held keeps its pixels."""

    def reserve(self) -> None:
        """Take the memory now: a full file system would otherwise kill whoever writes first."""
        if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
            os.posix_fallocate(self._fd, 0, self.size)  # pyright: ignore

    def close(self) -> None:
        try:
            super().close()
        except BufferError:  # someone still reads; the mapping goes when their view goes
            return


class _Slot:
    """One piece of memory, its state, and whether its name still exists."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.segment: _Segment | None = None
        self.linked = False
        self.held = False

    def ensure(self, size: int) -> None:
        """Make the slot hold at least `size` bytes; the old memory goes if it was smaller.

        Raises: CapacityError when shared memory is full.
        """
        if self.segment is not None and self.segment.size >= size:
            return
        self.drop()
        self.segment = _Segment(f"{prefix()}{secrets.token_hex(4)}", create=True, size=size)
        self.linked = True
        try:
            self.segment.reserve()
        except OSError as error:
            self.drop()
            raise CapacityError(
                "shared memory is full", expected=f"{size} bytes in /dev/shm", got=error.strerror
            ) from None

    def unlink(self) -> None:
        """Remove the name; mappings stay."""
        if self.segment is not None and self.linked:
            self.linked = False
            self.segment.unlink()

    def drop(self) -> None:
        """Remove name and mapping."""
        self.unlink()
        if self.segment is not None:
            self.segment.close()
            self.segment = None


class FrameSlots:
    """The slots of one session, parent side. Thread-safe."""

    def __init__(self, count: int = SLOTS_PER_SESSION) -> None:
        self._slots = [_Slot(i) for i in range(count)]
        self._free = threading.Condition()
        self._closed = False

    def acquire(self, size: int, *, timeout_s: float) -> SlotRef:
        """A slot of at least `size` bytes; waits while all are held.

        Raises: CapacityError after `timeout_s` or when shared memory is full, SessionClosedError
        once the slots are closed.
        """
        with self._free:
            self._free.wait_for(lambda: self._closed or self._idle() is not None, timeout_s)
            slot = self._idle()
            if self._closed:
                raise SessionClosedError("the session was closed while waiting for a frame slot")
            if slot is None:
                raise CapacityError(
                    "all frame slots are still held by the reader",
                    expected=f"a release within {timeout_s:g} s",
                    got=f"{len(self._slots)} held slots",
                )
            slot.ensure(size)
            slot.held = True
            assert slot.segment is not None, "ensure() made it"
            return SlotRef(index=slot.index, name=slot.segment.name, size=slot.segment.size)

    def view(self, index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The pixels in a held slot, not copied; also removes the slot's name."""
        slot = self._slots[index]
        assert slot.held and slot.segment is not None, f"slot {index} is not held"
        with self._free:
            slot.unlink()
        return np.ndarray(shape, dtype=np.uint8, buffer=slot.segment.buf)  # F H W 3

    def release(self, index: int) -> None:
        """Give a slot back; twice is harmless only if nobody acquired it in between."""
        with self._free:
            slot = self._slots[index]
            slot.held = False
            if self._closed:
                slot.drop()
            self._free.notify()

    def close(self) -> None:
        """Drop all free slots now, held ones when they are released. Idempotent."""
        with self._free:
            self._closed = True
            for slot in self._slots:
                slot.unlink()
                if not slot.held:
                    slot.drop()
            self._free.notify_all()

    def _idle(self) -> _Slot | None:
        return next((s for s in self._slots if not s.held), None)


class SlotWriter:
    """Worker side: maps the slots of one session as the parent names them."""

    def __init__(self) -> None:
        self._mapped: dict[int, SharedMemory] = {}

    def write(self, ref: SlotRef, frames: NDArray[np.uint8]) -> None:
        """Copy `frames` (uint8 `F H W 3`) into the slot."""
        assert frames.nbytes <= ref.size, f"slot of {ref.size} bytes for {frames.nbytes}"
        segment = self._mapped.get(ref.index)
        if segment is None or segment.name != ref.name:
            if segment is not None:
                segment.close()
            segment = self._mapped[ref.index] = _attach(ref.name)
        np.ndarray(frames.shape, dtype=np.uint8, buffer=segment.buf)[...] = frames

    def close(self) -> None:
        """Unmap everything."""
        for segment in self._mapped.values():
            segment.close()
        self._mapped.clear()


def _attach(name: str) -> SharedMemory:
    """Map memory the parent owns, without telling the resource tracker.

    Before Python 3.13 attaching also registers the name; the tracker is shared with the parent, so
    a name the parent has just unlinked would be reported as leaked when everything ends.
    """
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    register = resource_tracker.register
    resource_tracker.register = lambda name, rtype: None  # the worker's device thread is alone here
    try:
        return SharedMemory(name)
    finally:
        resource_tracker.register = register
