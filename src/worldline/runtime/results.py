"""Chunks on the parent's side: views into shared memory, and when that memory is free again."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Decoded, StageTimings
from worldline.runtime.protocol import FramesReply, OpenReply, StepReply
from worldline.runtime.shm import FrameSlots


class StepResult:
    """One chunk; `frames` (uint8 `F H W 3`, RGB) is a view into a slot of shared memory.

    The pixels are valid until `release()`, or, if that is forgotten, for as long as `frames` or a
    view of it exists. A session has two slots: hold two results and its next `step` waits.
    """

    def __init__(
        self, reply: StepReply, frames: NDArray[np.uint8], give_back: Callable[[], None]
    ) -> None:
        self.session_id = reply.session_id
        self.index = reply.chunk_index
        self.timings: StageTimings = reply.timings
        self.poses = reply.poses  # one per latent frame
        self.kept = reply.kept  # an encoded `core.snapshot.LightChunk`, where asked for
        self.frames = frames
        # Runs once, at release() or when the last view of the frames is gone.
        self._give_back = weakref.finalize(frames, give_back)
        self._give_back.atexit = False

    def release(self) -> None:
        """Give the slot back; idempotent. `frames` must not be read afterwards."""
        self.frames = np.empty((0, *self.frames.shape[1:]), dtype=np.uint8)  # 0 H W 3
        self._give_back()

    def __enter__(self) -> StepResult:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class ComingChunk:
    """A slot while a step writes into it: handed on as a result, or given back after all.

    Used by the thread that steps; only what gives the slot back may run elsewhere.
    """

    def __init__(self, slots: FrameSlots, index: int, shape: tuple[int, int, int, int]) -> None:
        """`shape` `(F, H, W, 3)` is what the whole chunk will have."""
        self._slots, self._index, self._shape = slots, index, shape
        self._frames: NDArray[np.uint8] | None = None

    @classmethod
    def of(
        cls, opened: OpenReply, chunk_index: int, *, slots: FrameSlots, index: int
    ) -> ComingChunk:
        """For chunk `chunk_index` of a session, in slot `index`."""
        shape = (opened.frames_in_chunk(chunk_index), opened.height, opened.width, 3)
        return cls(slots, index, shape)

    def part(self, frames: FramesReply) -> Decoded:
        """A view of frames that lie in the slot already."""
        part = self._whole()[frames.first : frames.first + frames.count]  # f H W 3
        return Decoded(frames.latent_frame, frames.first, part, frames.pose)

    def result(self, reply: StepReply) -> StepResult:
        """The whole chunk; the result gives the slot back."""
        assert reply.shape == self._shape, f"expected {self._shape}, got {reply.shape}"
        give_back = functools.partial(self._slots.release, self._index)
        return StepResult(reply, self._whole(), give_back)

    def give_up(self, reply: Future[Any] | None) -> None:
        """Give the slot back once nobody writes there or looks at it; `reply` None: never sent."""
        slots, index, frames = self._slots, self._index, self._frames

        def give_back(_: object = None) -> None:
            slots.release(index)

        if reply is None:
            give_back()
        elif frames is None:  # the worker may still write (Ctrl-C), until it has answered
            reply.add_done_callback(give_back)
        else:
            weakref.finalize(frames, reply.add_done_callback, give_back).atexit = False
            self._frames = None

    def _whole(self) -> NDArray[np.uint8]:
        if self._frames is None:
            self._frames = self._slots.view(self._index, self._shape)
        return self._frames
