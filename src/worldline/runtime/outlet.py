"""What a chunk in the making has to do with the outside: may it go on, and who sees its pictures.

Asked between two passes. Once the first pictures were handed on, or what it does cannot be undone,
a chunk goes to its end whatever is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Decoded
from worldline.core.errors import AbortedError
from worldline.core.motion import Pose

Fetch = Callable[[], NDArray[np.uint8]]


class Outlet:
    """Of one chunk. Without arguments nobody aborts it and nobody watches."""

    def __init__(
        self,
        *,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
        pace: Callable[[], None] | None = None,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        """`aborted` is asked between passes; `on_frames` takes pictures as they are decoded.

        `pace` is called before `aborted` is, see `lane.Lane.pace`. `agree` is told the answer of
        this rank, every time, and gives that of all of them.
        """
        self._aborted = aborted
        self._agree = agree
        self._on_frames = on_frames
        self._pace = pace
        self._coming: deque[Fetch] = deque()
        self._shown: list[NDArray[np.uint8]] = []
        self.poses: tuple[Pose, ...] = ()  # of the latent frames, once they are known

    @property
    def streams(self) -> bool:
        """Whether pictures are wanted before the chunk is complete."""
        return self._on_frames is not None

    @property
    def begun(self) -> bool:
        """Whether any pictures were handed on, or are on their way."""
        return bool(self._shown or self._coming)

    def check(self) -> None:
        """Raise `AbortedError` if the chunk is wanted no more and can still be given up."""
        if self._agree(self._wanted_no_more()):
            raise AbortedError("the chunk was given up on request")

    def _wanted_no_more(self) -> bool:
        if self._aborted is None or self._shown:
            return False
        if self._pace is not None:
            self._pace()
        return self._aborted()

    def commit(self) -> None:
        """From here on the chunk goes to its end."""
        self._aborted = None

    def expect(self, fetch: Fetch) -> None:
        """The pictures of the next latent frames come from `fetch`, which waits for them."""
        self._coming.append(fetch)

    def hand_on(self) -> None:
        """Wait for what is expected, and hand it on latent frame by latent frame."""
        while self._coming:
            frames = self._coming.popleft()()  # F H W 3
            # The first latent frame of a world is one picture, every other one four.
            later = len(frames) - len(frames) % 4
            for part in np.split(frames, range(len(frames) - later, len(frames), 4)):
                if len(part):
                    self._show(part)

    def frames(self) -> NDArray[np.uint8]:
        """All that was handed on, `F H W 3`."""
        return self._shown[0] if len(self._shown) == 1 else np.concatenate(self._shown)

    def _show(self, frames: NDArray[np.uint8]) -> None:
        assert self._on_frames is not None, "nobody watches"
        latent_frame, first = len(self._shown), sum(len(part) for part in self._shown)
        self._shown.append(frames)
        self._on_frames(Decoded(latent_frame, first, frames, self.poses[latent_frame]))
