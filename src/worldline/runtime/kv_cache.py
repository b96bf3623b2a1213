"""The ring of self-attention keys and values: exactly `window` latent frames, never moved.

Latent frame `f` lives in slot `f` while `f < sink`, else in
`sink + (f - sink) mod (window - sink)`. Every pass of a chunk writes the same slots through a
device index tensor and then attends to every filled slot: write before read, no roll, no other
copy. Filled slots are always a prefix, so there is one shape per fill level and, once full, one for
ever. The set of visible frames equals that of the official eviction; the order of keys differs, so
results agree to rounding, not bit for bit.

With `window` -1 nothing is evicted and the buffers grow by doubling (films).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.ops.attention import AttentionFn, AttentionShape, Slots, attention
from worldline.ops.cast import cast
from worldline.ops.rope import RopeTable, apply_rope
from worldline.runtime.pages import Page, Written
from worldline.runtime.transfer import download, upload, upload_into

PickAttention = Callable[[AttentionShape], AttentionFn]


class RingParams(NamedTuple):
    """Sizes of a ring; `window`, `sink` and `max_attention_frames` in latent frames.

    `time_order` copies what is attended into the order of time in every pass.
    """

    layers: int
    heads: int
    head_dim: int
    tokens_per_frame: int
    window: int
    sink: int
    max_attention_frames: int | None = None
    time_order: bool = False


def slot_of(frame: int, window: int, sink: int) -> int:
    """Slot of an absolute latent frame in a ring of `window` slots; the frame itself if -1."""
    if window == -1 or frame < sink:
        return frame
    return sink + (frame - sink) % (window - sink)


def one_attention(shape: AttentionShape) -> AttentionFn:
    """The attention for every shape where none is chosen by measurement."""
    del shape
    return attention


class FrameRing(ABC):
    """Which latent frame lies where, of one session and all blocks; how it is stored is left open.

    An `ops.attention.CacheWriter`: call `begin_chunk` before the passes of a chunk.
    """

    def __init__(
        self,
        params: RingParams,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        pick: PickAttention = one_attention,
    ) -> None:
        assert params.window == -1 or 0 <= params.sink < params.window, params
        self.params = params
        self._dtype, self._device, self._pick = dtype, torch.device(device), pick
        self._attention: AttentionFn = attention
        self._write_index: Tensor | None = None  # tokens the current chunk writes
        self._read_index: Tensor | None = None  # tokens attended, None = the filled prefix
        self._indexes: dict[tuple[str, int], Tensor] = {}  # one per use and length, for ever
        self._written: dict[int, Written] = {}  # by slot
        self._visible = 0  # attended tokens
        self._end = 0  # latent frames begun so far
        self._capacity = max(params.window, 0)
        self._reserve(self._capacity)

    @abstractmethod
    def _reserve(self, frames: int) -> None:
        """Make buffers of `frames` slots, keeping what the old ones hold."""

    @abstractmethod
    def buffers(self) -> list[Tensor]:
        """Everything that is stored, token by token along dimension 1."""

    @abstractmethod
    def store(self, layer: int, index: Tensor, k: Tensor, v: Tensor) -> None:
        """Put `k, v [1, L, N, D]` of block `layer` into the tokens `index [L]`."""

    @abstractmethod
    def restore(self, layer: int, tokens: int | Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[1, K, N, D]` of the first `tokens`, or of those of an index."""

    @abstractmethod
    def _turn(self, layer: int, table: RopeTable, tokens: int) -> None:
        """Turn the first `tokens` keys of a block in place."""

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(t.nbytes for t in self.buffers())

    @property
    def visible_tokens(self) -> int:
        """Keys that the current chunk's passes attend to."""
        return self._visible

    def present_frames(self, end: int) -> list[int]:
        """Absolute latent frames held once frame `end - 1` is written, in time order."""
        window, sink = self.params.window, self.params.sink
        if window == -1 or end <= window:
            return list(range(end))
        return [*range(sink), *range(end - (window - sink), end)]

    def begin_chunk(self, start: int, frames: int, *, visible: Sequence[int] | None = None) -> None:
        """Aim the ring at latent frames `start .. start + frames - 1`.

        The passes attend to all frames that are held, or only to those in `visible`.
        """
        p, end = self.params, start + frames
        # `resolve_runtime` refuses such settings with a typed error long before.
        assert p.window == -1 or p.window >= p.sink + frames, "window >= sink + chunk"
        if end > self._capacity:
            self._grow(end)
        self._end = end
        self._touch(range(start, end))
        self._write_index = self._aimed("write", range(start, end))
        held = self.present_frames(end)
        wanted = held if visible is None else visible
        if p.max_attention_frames is not None and p.max_attention_frames < len(wanted):
            # The newest frames in time order: the official slice, which drops the sink first.
            wanted = wanted[-p.max_attention_frames :]
        if len(wanted) < len(held) or p.time_order:
            self._read_index = self._aimed("read", wanted)
        else:
            self._read_index = None
        self._visible = len(wanted) * p.tokens_per_frame
        queries = frames * p.tokens_per_frame
        shape = AttentionShape(queries, self._visible, p.heads, p.head_dim, self._dtype)
        self._attention = self._pick(shape)

    @property
    def aim(self) -> Hashable:
        """What the operations of a pass and their addresses depend on, ring by ring."""
        return (len(self._aim()), self._visible, self._read_index is None, self._attention)

    def empty(self) -> None:
        """Hold nothing, as if new; buffers and their addresses stay."""
        self._end = self._visible = 0
        self._written.clear()

    def rewind(self, end: int) -> None:
        """Take back a chunk that was begun at latent frame `end`; its slots are written again."""
        self._end = end

    @property
    def dtype(self) -> torch.dtype:
        """Of what is attended."""
        return self._dtype

    @property
    def end(self) -> int:
        """Latent frames begun so far."""
        return self._end

    @property
    def page_bytes(self) -> int:
        """Bytes of one latent frame."""
        tokens, buffers = self.params.tokens_per_frame, self.buffers()
        return sum(b[:, :1].nbytes * tokens for b in buffers)

    def page(self, frame: int) -> Page:
        """A copy of one latent frame on the host; the one there is, if it was copied before."""
        written = self.written(frame)
        page = written.page
        if page is None:
            part = self._rows(frame)
            page = Page(frame, written, tuple(download(b[:, part]) for b in self.buffers()))
            written.note(page)
        return page

    def written(self, frame: int) -> Written:
        """What lies in the slot of a frame that is held."""
        return self._written[slot_of(frame, self.params.window, self.params.sink)]

    def taking(self, pages: Sequence[Page], end: int) -> Iterator[None]:
        """Hold `pages`, of a ring of the same kind, and stand at frame `end`; page by page.

        What lies there already is not copied. Frames up to `end` that are not among them must not
        be attended to before they are written.
        """
        last = max((page.frame for page in pages), default=-1)
        if last >= self._capacity:
            self._grow(last + 1)
        self._end = end
        for page in pages:
            slot = slot_of(page.frame, self.params.window, self.params.sink)
            if self._written.get(slot) is not page.written:
                self._written.pop(slot, None)  # until all of it is there
                part = self._rows(page.frame)
                for buffer, rows in zip(self.buffers(), page.rows, strict=True):
                    buffer[:, part].copy_(rows, non_blocking=True)
                self._written[slot] = page.written
                yield

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write `k, v [1, L, N, D]` of block `layer` into the current chunk's slots."""
        self.store(layer, self._aim(), k, v)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write, then attend `q [1, L, N, D]` to every visible slot."""
        self.write(layer, k, v)
        index = self._read_index
        keys, values = self.restore(layer, self._visible if index is None else index)
        return self._attention(cast(q, self._dtype), keys, values)

    def turn(self, table: RopeTable, *, frames: int | None = None) -> None:
        """Turn the keys of the first `frames` slots, or of all, in place.

        `table [1, D/2]` has one row.
        """
        count = min(self._end, self._capacity) if frames is None else frames
        self._touch(range(count))  # frames that lie in their own slots name all of the first ones
        for layer in range(self.params.layers):
            self._turn(layer, table, count * self.params.tokens_per_frame)

    def take(self, frames: Sequence[int]) -> list[Tensor]:
        """Copies of everything stored of `frames`, for `put`."""
        index = upload(self._tokens(frames), self._device)
        return [buffer[:, index] for buffer in self.buffers()]

    def put(self, frames: Sequence[int], kept: Sequence[Tensor]) -> None:
        """Store what `take` of a ring of the same kind gave, as `frames`; it may be elsewhere."""
        if frames[-1] >= self._capacity:
            self._grow(frames[-1] + 1)
        self._end = max(self._end, frames[-1] + 1)
        self._touch(frames)
        index = upload(self._tokens(frames), self._device)
        for buffer, rows in zip(self.buffers(), kept, strict=True):
            buffer.index_copy_(1, index, rows.to(self._device, non_blocking=True))

    def adopt(self, other: FrameRing) -> None:
        """Hold what `other` holds; its sizes must be equal, its way of storing may differ."""
        assert self.params == other.params, "rings of different sizes"
        if other._end > self._capacity:
            self._grow(other._end)
        self._end = other._end
        self._touch(range(min(self._end, self._capacity)))
        filled = min(self._end, self._capacity) * self.params.tokens_per_frame
        index = upload(torch.arange(filled), self._device)
        for layer in range(self.params.layers):
            self.store(layer, index, *other.restore(layer, filled))

    def in_time_order(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values of the frames present at `end`, oldest first: `[1, K, N, D]`.

        Not used by the passes, which read the ring as it lies.
        """
        return self.restore(layer, upload(self._tokens(self.present_frames(end)), self._device))

    def _aim(self) -> Tensor:
        assert self._write_index is not None, "begin_chunk comes first"
        return self._write_index

    def _touch(self, frames: Iterable[int]) -> None:
        """What lies in the slots of `frames` is about to change."""
        for frame in frames:
            self._written[slot_of(frame, self.params.window, self.params.sink)] = Written()

    def _rows(self, frame: int) -> slice:
        """Tokens of one frame."""
        tokens = self.params.tokens_per_frame
        first = slot_of(frame, self.params.window, self.params.sink) * tokens
        return slice(first, first + tokens)

    def _tokens(self, frames: Sequence[int]) -> Tensor:
        """Tokens of `frames` in the ring, on the CPU."""
        tokens = self.params.tokens_per_frame
        slots = [slot_of(f, self.params.window, self.params.sink) for f in frames]
        first = torch.tensor(slots, dtype=torch.long).unsqueeze(1) * tokens
        return (first + torch.arange(tokens)).flatten()

    def _aimed(self, use: str, frames: Sequence[int]) -> Tensor:
        """An index of the tokens of `frames`, at the same address for every use and length."""
        index = self._tokens(frames)
        kept = self._indexes.get((use, len(index)))
        if kept is None:
            kept = self._indexes[use, len(index)] = torch.empty_like(index, device=self._device)
        upload_into(kept, index)
        return kept

    def _grow(self, frames: int) -> None:
        if self.params.window == -1:
            self._capacity = max(frames, 2 * self._capacity)
            self._reserve(self._capacity)


class KVRing(FrameRing):
    """Keys and values as they are; an `ops.attention.SlotAttend`, so kernels may write them."""

    def _reserve(self, frames: int) -> None:
        old = self.buffers() if self._end else []
        p = self.params
        shape = (1, frames * p.tokens_per_frame, p.heads, p.head_dim)  # 1 K N D

        def made(count: int) -> list[Tensor]:
            return [
                torch.empty(shape, dtype=self._dtype, device=self._device) for _ in range(count)
            ]

        self.keys, self.values = made(p.layers), made(p.layers)
        for before, now in zip(old, self.buffers() if old else [], strict=True):
            now[:, : before.shape[1]] = before

    def buffers(self) -> list[Tensor]:
        """See `FrameRing`; keys of all blocks, then values `[1, K, N, D]`."""
        return [*self.keys, *self.values]

    def store(self, layer: int, index: Tensor, k: Tensor, v: Tensor) -> None:
        """See `FrameRing`."""
        self.keys[layer].index_copy_(1, index, cast(k, self._dtype))
        self.values[layer].index_copy_(1, index, cast(v, self._dtype))

    def restore(self, layer: int, tokens: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `FrameRing`; of a number of tokens a view."""
        part = slice(tokens) if isinstance(tokens, int) else tokens
        return self.keys[layer][:, part], self.values[layer][:, part]

    def slots(self, layer: int) -> Slots:
        """Where block `layer` of the current chunk writes."""
        return Slots(self.keys[layer], self.values[layer], self._aim())

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attend `q [1, L, N, D]` to every visible slot; the chunk's own are written."""
        index = self._read_index
        keys, values = self.restore(layer, self._visible if index is None else index)
        return self._attention(cast(q, self._dtype), keys, values)

    def _turn(self, layer: int, table: RopeTable, tokens: int) -> None:
        keys = self.keys[layer][:, :tokens]
        keys.copy_(apply_rope(keys, table))
