"""Frame slots: where the pixels of a chunk cross from the worker to the server without a pipe.

The parent owns every slot: it creates the memory, names it in a step call, and reads it until it
gives the slot back; the worker only maps and writes. A session has a fixed number of slots, so a
slow reader runs out of its own and of nobody else's. A slot that is too small is made anew.

The name in the file system lives only until the first answer that used the slot: then both sides
have it mapped and the parent unlinks it. Whatever process dies afterwards leaves nothing behind;
in the short time before, the parent's exit path or Python's resource tracker removes the name.

Behind the pixels lies one byte that goes the other way: the parent sets it when the chunk is wanted
no more, and the worker looks at it between two passes.
"""

from __future__ import annotations

import contextlib
import os
import queue
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
CONTROL_BYTES = 1
WANTED, ABORTED = 0, 1  # what the control byte says


def prefix() -> str:
    """How the names of this process's slots begin; macOS allows 31 characters in all."""
    return f"worldline-{os.getpid()}-"


class _Segment(SharedMemory):
    """Shared memory whose mapping lasts as long as anyone looks at it."""

    def settle(self) -> None:
        """Take the memory now, then keep only the mapping. Raises: OSError when there is none left.

        A full file system would otherwise kill whoever writes first; and with the descriptor gone,
        a mapping that is still looked at when it is closed needs nothing but its last view to go.
        """
        descriptor = getattr(self, "_fd", -1)  # Windows has none
        if descriptor < 0:
            return
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(descriptor, 0, self.size)
        os.close(descriptor)
        self._fd = -1

    def close(self) -> None:
        """Unmap, or leave that to the last view."""
        with contextlib.suppress(BufferError):
            super().close()


class _Slot:
    """One piece of memory, and whether its name still exists."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.capacity = 0  # bytes of pixels
        self.segment: _Segment | None = None
        self.linked = False
        self._unlinking = threading.Lock()

    def ensure(self, size: int) -> SlotRef:
        """Make the slot hold at least `size` bytes; the old memory goes if it was smaller.

        Raises: CapacityError when shared memory is full.
        """
        if self.segment is None or self.capacity < size:
            self.drop()
            name = f"{prefix()}{secrets.token_hex(4)}"
            self.segment = _Segment(name, create=True, size=size + CONTROL_BYTES)
            self.capacity = size
            self.linked = True
            try:
                self.segment.settle()
            except OSError as error:
                self.drop()
                wanted = f"{size} bytes in /dev/shm"
                raise CapacityError(
                    "shared memory is full", expected=wanted, got=error.strerror
                ) from None
        _bytes(self.segment)[self.capacity] = WANTED
        return SlotRef(index=self.index, name=self.segment.name, size=self.capacity)

    def unlink(self) -> None:
        """Remove the name; mappings stay."""
        if self.segment is not None and self.linked:
            with self._unlinking:
                if self.linked:
                    self.linked = False
                    self.segment.unlink()

    def drop(self) -> None:
        """Remove name and mapping."""
        self.unlink()
        if self.segment is not None:
            self.segment.close()
            self.segment = None


class FrameSlots:
    """The slots of one session, parent side. Thread-safe.

    Free slots wait in a `SimpleQueue`, because `release` may be called by the garbage collector in
    the middle of anything: its `put` takes no lock that this thread could already hold.
    """

    def __init__(self, count: int = SLOTS_PER_SESSION) -> None:
        self._slots = [_Slot(i) for i in range(count)]
        self._free: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # None: closed
        self._closed = False
        for index in range(count):
            self._free.put(index)

    def acquire(self, size: int, *, timeout_s: float) -> SlotRef:
        """A slot of at least `size` bytes; waits while all are held.

        Raises: CapacityError after `timeout_s` or when shared memory is full, SessionClosedError
        once the slots are closed.
        """
        try:
            index = self._free.get(timeout=timeout_s)
        except queue.Empty:
            raise CapacityError(
                "all frame slots are still held by the reader",
                expected=f"a release within {timeout_s:g} s",
                got=f"{len(self._slots)} held slots",
            ) from None
        if index is None or self._closed:
            self.release(index)
            raise SessionClosedError("the session was closed while waiting for a frame slot")
        try:
            return self._slots[index].ensure(size)
        except BaseException:
            self.release(index)
            raise

    def view(self, index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The pixels in a held slot, not copied; also removes the slot's name."""
        slot = self._slots[index]
        assert slot.segment is not None, f"slot {index} was never acquired"
        slot.unlink()
        return np.ndarray(shape, dtype=np.uint8, buffer=slot.segment.buf)  # F H W 3

    def abort(self, index: int) -> None:
        """Say to whoever writes into a held slot that the chunk is wanted no more."""
        slot = self._slots[index]
        assert slot.segment is not None, f"slot {index} was never acquired"
        _bytes(slot.segment)[slot.capacity] = ABORTED

    def release(self, index: int | None) -> None:
        """Give a held slot back, once."""
        self._free.put(index)
        if self._closed:
            self._drop_free()

    def close(self) -> None:
        """Drop all free slots now, held ones when they are released. Idempotent."""
        self._closed = True
        for slot in self._slots:
            slot.unlink()
        self._drop_free()

    def _drop_free(self) -> None:
        """Drop what is in the queue, and leave the mark there that wakes whoever waits."""
        with contextlib.suppress(queue.Empty):
            while True:
                index = self._free.get_nowait()
                if index is not None:
                    self._slots[index].drop()
        self._free.put(None)


class SlotWriter:
    """Worker side: maps the slots of one session as the parent names them."""

    def __init__(self) -> None:
        self._mapped: dict[int, SharedMemory] = {}

    def __len__(self) -> int:
        return len(self._mapped)

    def write(self, ref: SlotRef, frames: NDArray[np.uint8], *, first: int = 0) -> None:
        """Copy `frames` (uint8 `f H W 3`) into the slot, behind `first` others of that size."""
        offset = first * frames[0].nbytes
        held = f"slot of {ref.size} bytes for {frames.nbytes} at {offset}"
        assert offset + frames.nbytes <= ref.size, held
        segment = self._segment(ref)
        np.ndarray(frames.shape, dtype=np.uint8, buffer=segment.buf, offset=offset)[...] = frames

    def aborted(self, ref: SlotRef) -> bool:
        """Whether the parent wants the chunk of this slot no more."""
        return _bytes(self._segment(ref))[ref.size] == ABORTED

    def close(self) -> None:
        """Unmap everything."""
        for segment in self._mapped.values():
            segment.close()
        self._mapped.clear()

    def _segment(self, ref: SlotRef) -> SharedMemory:
        segment = self._mapped.get(ref.index)
        if segment is None or segment.name != ref.name:
            if segment is not None:
                segment.close()
            segment = self._mapped[ref.index] = _attach(ref.name)
        return segment


def _bytes(segment: SharedMemory) -> memoryview:
    assert segment.buf is not None, "a segment in use is mapped"
    return segment.buf


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
