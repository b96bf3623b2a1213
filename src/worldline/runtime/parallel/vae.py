"""An autoencoder of which every rank of a group does some columns of the picture.

Every rank is given the whole input and has a history of its own columns. Latents come out whole on
all ranks, because all of them need the condition; pictures come out on the rank that encodes them
for viewers, and elsewhere as zeros that take no memory. What is refused is refused by the
autoencoder itself and by all ranks alike, before anything is sent.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from worldline.models.wan.tiny import PreviewVae
from worldline.ops.collectives import Collectives
from worldline.ops.halo import Columns
from worldline.ops.vae import StreamingVae, StreamState

CELL = 8  # pixels per latent cell
ENCODING_RANK = 0  # the one that speaks with the outside


class ColumnVae(StreamingVae, Protocol):
    """A `StreamingVae` that can also do one rank's columns."""

    def encode_stream(
        self, video: Tensor, state: Any, *, columns: Columns | None = None
    ) -> tuple[Tensor, StreamState]:
        """With `columns`, `video` and the latents are those columns."""
        ...

    def decode_stream(
        self, latents: Tensor, state: Any, *, columns: Columns | None = None
    ) -> tuple[Tensor, StreamState]:
        """With `columns`, `latents` and the video are those columns."""
        ...


class SharedVae:
    """See the module's contract; a `StreamingVae`. `whole` is the autoencoder itself."""

    def __init__(self, whole: ColumnVae, group: Collectives) -> None:
        """All ranks of `group` make the same calls in the same order."""
        self.whole = whole
        self._group = group
        self._known: dict[int, Columns] = {}

    @property
    def stationary_latent(self) -> int:
        """See `StreamingVae`."""
        return self.whole.stationary_latent

    @property
    def frame_by_frame(self) -> bool:
        """See `StreamingVae`."""
        return self.whole.frame_by_frame

    def encode_stream(self, video: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See `StreamingVae`; the whole latents on every rank."""
        width, rest = divmod(video.shape[-1], CELL)
        columns = None if rest else self._columns(width)
        if columns is None:
            return self.whole.encode_stream(video, state)
        ours = columns.part.of(video)
        latents, state = self.whole.encode_stream(ours, state, columns=columns)
        return columns.all(latents, name="vae latents"), state

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """See `StreamingVae`; the whole video on the encoding rank, zeros elsewhere."""
        columns = self._columns(latents.shape[-1])
        if columns is None:
            return self.whole.decode_stream(latents, state)
        ours = columns.part.of(latents)
        video, state = self.whole.decode_stream(ours, state, columns=columns)
        pictures = columns.collect(video, ENCODING_RANK, name="vae frames")
        if pictures is None:
            size = (*video.shape[:-1], CELL * columns.part.width)
            pictures = video.new_zeros(1).expand(size)
        return pictures, state

    def _columns(self, width: int) -> Columns | None:
        """How `width` latent columns are cut; None where there are fewer than ranks."""
        if width < self._group.size:
            return None
        if width not in self._known:
            self._known[width] = Columns(width, self._group)
        return self._known[width]


def share_vae(vae: ColumnVae, group: Collectives) -> StreamingVae:
    """`vae` as one rank of `group` has it; one rank has all of it."""
    return vae if group.size == 1 else SharedVae(vae, group)


def whole_vae(vae: StreamingVae) -> StreamingVae:
    """The autoencoder that does every picture alone, for a session that is not shared out."""
    if isinstance(vae, PreviewVae):
        return PreviewVae(whole_vae(vae.full), vae.tiny)
    return vae.whole if isinstance(vae, SharedVae) else vae
