"""Where a chunk is decoded and handed over: behind the transformer's passes, or beside them.

On a GPU the decoder has a stream of its own. It starts when the latents are clean and runs while
the context pass and the next chunk do; frames go to pinned memory in that stream, and the host
waits for them and for nothing else. Everywhere else things happen in turn, by the same calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.ops.image import to_uint8


class Lane(Protocol):
    """The order of decoding and passes."""

    def decoding(self, latents: Tensor) -> AbstractContextManager[None]:
        """What is queued inside comes after everything queued so far, and reads `latents`."""
        ...

    @property
    def queues(self) -> bool:
        """Whether what is asked for here happens later, beside what the host does next."""
        ...

    def fetching(self, video: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Begin to bring video `[1, 3, F, H, W]` decoded here to the host.

        What is returned waits for the frames `F H W 3`.
        """
        ...

    def fetch(self, video: Tensor) -> NDArray[np.uint8]:
        """`fetching`, and wait."""
        ...

    def join(self) -> None:
        """What the passes' stream does from here on comes after what was decoded."""
        ...

    def pace(self) -> None:
        """Wait until no more than what was queued since the last call is still to be done.

        Called between passes that may be given up: a queue that holds a whole chunk cannot be.
        """
        ...


class InTurn:
    """One after the other, in the current stream."""

    def __init__(self, *, on_host: bool = False) -> None:
        """`on_host` rounds to bytes on the host, after four times as many bytes were copied."""
        self._on_host = on_host

    def decoding(self, latents: Tensor) -> AbstractContextManager[None]:
        """See `Lane`."""
        del latents
        return nullcontext()

    queues = False

    def fetching(self, video: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """See `Lane`."""
        return partial(self.fetch, video)

    def fetch(self, video: Tensor) -> NDArray[np.uint8]:
        """See `Lane`."""
        if self._on_host:
            return to_uint8(video.cpu()).numpy()
        return to_uint8(video).cpu().numpy()

    def join(self) -> None:
        """See `Lane`."""

    def pace(self) -> None:
        """See `Lane`; nothing is queued."""


def choose_lane(device: torch.device, without: Collection[str]) -> Lane:
    """The lane of a device; `without` names savings that are switched off."""
    if device.type == "cuda" and "decode_stream" not in without:
        return SideStream(device, on_host="device_bytes" in without)
    return InTurn(on_host="device_bytes" in without)


class SideStream:
    """The decoder in a CUDA stream of its own."""

    def __init__(self, device: torch.device, *, on_host: bool = False) -> None:
        """`on_host` as in `InTurn`."""
        self._stream = torch.cuda.Stream(device)
        self._last: torch.cuda.Event | None = None
        self._on_host = on_host

    @contextmanager
    def decoding(self, latents: Tensor) -> Iterator[None]:
        """See `Lane`."""
        self._stream.wait_stream(torch.cuda.current_stream(latents.device))
        # The passes' stream allocated them, and must not give their memory away before we are done.
        latents.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            yield

    queues = True

    def fetch(self, video: Tensor) -> NDArray[np.uint8]:
        """See `Lane`."""
        return self.fetching(video)()

    def fetching(self, video: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """See `Lane`; the array lies in pinned memory that torch uses again when it is dropped."""
        with torch.cuda.stream(self._stream):
            frames = video if self._on_host else to_uint8(video)
            host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
            host.copy_(frames, non_blocking=True)
            done = torch.cuda.Event()
            done.record()

        def wait() -> NDArray[np.uint8]:
            done.synchronize()
            return (to_uint8(host) if self._on_host else host).numpy()

        return wait

    def join(self) -> None:
        """See `Lane`."""
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def pace(self) -> None:
        """See `Lane`; one pass runs while the next one is queued, so the device never waits."""
        before, self._last = self._last, torch.cuda.Event()
        self._last.record(torch.cuda.current_stream(self._stream.device))
        if before is not None:
            before.synchronize()
