"""A ring whose keys and values are kept in int8: half the memory of bfloat16."""

from __future__ import annotations

from torch import Tensor

from worldline.ops.rope import RopeTable, apply_rope
from worldline.quant.kv import Int8Cache
from worldline.runtime.kv_cache import FrameRing


class Int8Ring(FrameRing):
    """Quantised as they are written, restored as they are read; turned in float32.

    No `ops.attention.SlotAttend`: what a kernel would write into the slots is not what is stored.
    """

    def _reserve(self, frames: int) -> None:
        old = self.buffers() if self._end else []
        p, tokens = self.params, frames * self.params.tokens_per_frame

        def made() -> list[Int8Cache]:
            return [
                Int8Cache(tokens, p.heads, p.head_dim, device=self._device) for _ in range(p.layers)
            ]

        self._keys, self._values = made(), made()
        for before, now in zip(old, self.buffers() if old else [], strict=True):
            now[:, : before.shape[1]] = before

    def buffers(self) -> list[Tensor]:
        """See `FrameRing`; values and scales of all keys, then of all values."""
        caches = [*self._keys, *self._values]
        return [part for cache in caches for part in (cache.values, cache.scale)]

    def store(self, layer: int, index: Tensor, k: Tensor, v: Tensor) -> None:
        """See `FrameRing`."""
        self._keys[layer].write(index, k)
        self._values[layer].write(index, v)

    def restore(self, layer: int, tokens: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `FrameRing`; always new tensors."""
        keys = self._keys[layer].read(tokens, self._dtype)
        return keys, self._values[layer].read(tokens, self._dtype)

    def _turn(self, layer: int, table: RopeTable, tokens: int) -> None:
        self._keys[layer].change(lambda rows: apply_rope(rows, table), tokens)
