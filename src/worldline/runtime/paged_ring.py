"""What a ring held, page by page, while its session is away from the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from worldline.ops.rope import RopeTable
from worldline.runtime.kv_cache import FrameRing, RingParams
from worldline.runtime.pages import Page, Written


class PagedRing(FrameRing):
    """Knows what lies where, as the ring it stands for; it is not attended to nor written.

    Pages that other sessions or snapshots hold too take no memory of their own.
    """

    def __init__(
        self, params: RingParams, dtype: torch.dtype, *, pages: Sequence[Page] = (), end: int = 0
    ) -> None:
        """In the place of a ring that stood, or is to stand, at latent frame `end`."""
        self._pages: dict[int, Page] = {}
        super().__init__(params, dtype=dtype, device="cpu")
        for _ in self.taking(pages, end):
            pass

    @property
    def pages(self) -> tuple[Page, ...]:
        """All of them, oldest first."""
        return tuple(self._pages[frame] for frame in sorted(self._pages))

    @property
    def page_bytes(self) -> int:
        """See `FrameRing`; all that is needed is there, so nobody will copy one."""
        return max((page.nbytes for page in self._pages.values()), default=0)

    def buffers(self) -> list[Tensor]:
        """The rows of all pages."""
        return [rows for page in self.pages for rows in page.rows]

    def empty(self) -> None:
        """See `FrameRing`."""
        super().empty()
        self._pages.clear()

    def page(self, frame: int) -> Page:
        """See `FrameRing`; it is there."""
        return self._pages[frame]

    def written(self, frame: int) -> Written:
        """See `FrameRing`."""
        return self._pages[frame].written

    def taking(self, pages: Sequence[Page], end: int) -> Iterator[None]:
        """See `FrameRing`; nothing is copied."""
        self._pages, self._end = {page.frame: page for page in pages}, end
        return iter(())

    def _reserve(self, frames: int) -> None:
        """There are no slots."""

    def store(self, layer: int, index: Tensor, k: Tensor, v: Tensor) -> None:
        """Never."""
        raise AssertionError("a session that is away is not written")

    def restore(self, layer: int, tokens: int | Tensor) -> tuple[Tensor, Tensor]:
        """Never."""
        raise AssertionError("a session that is away is not attended to")

    def _turn(self, layer: int, table: RopeTable, tokens: int) -> None:
        raise AssertionError("a session that is away is not turned")


def needed_frames(ring: FrameRing, end: int, chunk: int) -> list[int]:
    """Latent frames before `end` that the next chunk, of `chunk` frames, may attend to.

    The slots of all others are written before they are read.
    """
    return [frame for frame in ring.present_frames(end + chunk) if frame < end]


def pages_of(ring: FrameRing, chunk: int) -> Iterator[Page]:
    """Copies of all that the next chunk of a session may attend to, one by one."""
    for frame in needed_frames(ring, ring.end, chunk):
        yield ring.page(frame)
