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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.ops.attention import Slots, attention
from worldline.ops.rope import RopeTable, apply_rope
from worldline.runtime.transfer import upload, upload_into


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


class KVRing:
    """Keys and values of one session, all blocks; an `ops.attention.CacheWriter`.

    Call `begin_chunk` before the passes of a chunk; the object itself is the `attend` callable.
    """

    def __init__(
        self, params: RingParams, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        assert params.window == -1 or 0 <= params.sink < params.window, params
        self.params = params
        capacity = params.window if params.window != -1 else 0
        self._dtype, self._device = dtype, torch.device(device)
        self.keys = [self._buffer(capacity) for _ in range(params.layers)]
        self.values = [self._buffer(capacity) for _ in range(params.layers)]
        self._capacity = capacity
        self._write_index: Tensor | None = None  # tokens the current chunk writes
        self._read_index: Tensor | None = None  # tokens attended, None = the filled prefix
        self._visible = 0  # attended tokens

    def _buffer(self, frames: int) -> Tensor:
        p = self.params
        shape = (1, frames * p.tokens_per_frame, p.heads, p.head_dim)  # 1 K N D
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

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
        window, sink = self.params.window, self.params.sink
        # `resolve_runtime` refuses such settings with a typed error long before.
        assert window == -1 or window >= sink + frames, "window >= sink + chunk"
        end = start + frames
        if self.params.window == -1:
            self._grow(end)
        self._write_index = self._aimed(self._write_index, range(start, end))
        held = self.present_frames(end)
        wanted = held if visible is None else visible
        limit = self.params.max_attention_frames
        if limit is not None and limit < len(wanted):
            # The newest frames in time order: the official slice, which drops the sink first.
            wanted = wanted[-limit:]
        if len(wanted) < len(held) or self.params.time_order:
            self._read_index = self._aimed(self._read_index, wanted)
        else:
            self._read_index = None
        self._visible = len(wanted) * self.params.tokens_per_frame

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write `k, v [1, L, N, D]` of block `layer` into the current chunk's slots."""
        assert self._write_index is not None, "begin_chunk comes first"
        self.keys[layer].index_copy_(1, self._write_index, k.to(self._dtype))
        self.values[layer].index_copy_(1, self._write_index, v.to(self._dtype))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write, then attend `q [1, L, N, D]` to every visible slot."""
        self.write(layer, k, v)
        return self.read(layer, q)

    def slots(self, layer: int) -> Slots:
        """Where block `layer` writes the current chunk, for a kernel that does so itself."""
        assert self._write_index is not None, "begin_chunk comes first"
        return Slots(self.keys[layer], self.values[layer], self._write_index)

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attend `q [1, L, N, D]` to every visible slot."""
        keys, values = self.keys[layer], self.values[layer]
        if self._read_index is not None:
            keys, values = keys[:, self._read_index], values[:, self._read_index]
        else:
            keys, values = keys[:, : self._visible], values[:, : self._visible]
        return attention(q.to(self._dtype), keys, values)

    def turn(self, table: RopeTable) -> None:
        """Turn every cached key in place by the angles of a one-row `table [1, D/2]`."""
        for keys in self.keys:
            keys.copy_(apply_rope(keys, table))

    def in_time_order(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values of the frames present at `end`, oldest first: `[1, K, N, D]`.

        Not used by the passes, which read the ring as it lies.
        """
        index = self._token_index(self.present_frames(end)).to(self._device)
        return self.keys[layer][:, index], self.values[layer][:, index]

    def _token_index(self, frames: Sequence[int]) -> Tensor:
        """Tokens of `frames` in the ring, on the CPU."""
        tokens = self.params.tokens_per_frame
        slots = [slot_of(f, self.params.window, self.params.sink) for f in frames]
        first = torch.tensor(slots, dtype=torch.long).unsqueeze(1) * tokens
        return (first + torch.arange(tokens)).flatten()

    def _aimed(self, old: Tensor | None, frames: Sequence[int]) -> Tensor:
        """An index of the tokens of `frames`: `old` written anew, so that its address stays."""
        index = self._token_index(frames)
        if old is None or old.shape != index.shape:
            return upload(index, self._device)
        upload_into(old, index)
        return old

    def _grow(self, frames: int) -> None:
        if frames <= self._capacity:
            return
        capacity = max(frames, 2 * self._capacity)
        for buffers in (self.keys, self.values):
            for i, old in enumerate(buffers):
                new = self._buffer(capacity)
                new[:, : old.shape[1]] = old
                buffers[i] = new
        self._capacity = capacity
