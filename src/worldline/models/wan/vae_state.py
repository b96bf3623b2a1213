"""What a stream through the VAE remembers: the last input frames of every causal convolution.

The network holds weights only. A call reads the old history through a `Tape`, records the new one
in the same order and hands it back as a new `VaeState`; the state that came in is never changed,
so a chunk that fails leaves its session where it was and a branch needs no copy to be safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from worldline.models.wan.params import CAUSAL_TAPS
from worldline.ops.halo import LENT, Columns, Part

History = tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class VaeState:
    """History of one encode or decode stream; opaque to callers.

    `slots` holds `[B, C, 2, H, W]` per causal convolution in the order the network runs them
    (`[B, C, 1, H, W]` for strided ones; None for a temporal upsampler that has only seen the first
    latent frame, which it passes on untouched). `latents` counts latent frames so far. Of a picture
    cut among ranks it is that of `part`, the columns lent by its neighbours included.
    """

    direction: Literal["encode", "decode"]
    latents: int
    slots: History
    part: Part | None = None

    def clone(self) -> VaeState:
        """Copy with tensors of its own."""
        slots = tuple(None if slot is None else slot.clone() for slot in self.slots)
        return VaeState(self.direction, self.latents, slots, self.part)

    @property
    def nbytes(self) -> int:
        """Bytes held by the history."""
        return sum(slot.nbytes for slot in self.slots if slot is not None)


class Tape:
    """Hands each causal layer its history, in running order, and collects the next one.

    `columns` is our part of a picture cut among ranks, None of a whole one. What the tape has
    handed out it holds no longer: between two latent frames of one call only the new history is
    alive, and whatever the caller keeps.
    """

    def __init__(self, slots: History, columns: Columns | None = None) -> None:
        self.columns = columns
        self._old = list(slots)
        self._new: list[Tensor | None] = []

    @property
    def first(self) -> bool:
        """True for the first latent frame of a clip, when no layer has any history."""
        return not self._old

    def rewind(self) -> None:
        """Go on with the next latent frame, on the history that the last one has left."""
        self._old, self._new = list(self.finish()), []

    def splice(self, x: Tensor, keep: int = CAUSAL_TAPS - 1) -> Tensor:
        """Put the history of this layer before `x [B, C, F, H, W]`; zeros where there is none.

        Returns `[B, C, keep+F, H, W]` and records its last `keep` frames for the next call.
        """
        old = self._take()
        if old is None:
            old = x.new_zeros(*x.shape[:2], keep, *x.shape[3:])
        x = torch.cat([old, x], 2)  # B C keep+F H W
        # A copy: a view would keep the whole spliced tensor alive until the next call.
        self._new.append(x[:, :, -keep:].clone())
        return x

    def widen(self, x: Tensor, keep: int = CAUSAL_TAPS - 1) -> Tensor:
        """`splice`, with the columns that neighbours lend `x` beside it: `[B, C, keep+F, H, w+2]`.

        History has its own already: they cross once, not once per tap.
        """
        assert self.columns is not None, "only parts of a picture are widened"
        old, (batch, width, frames, height, columns) = self._take(), x.shape
        out = x.new_empty(batch, width, keep + frames, height, columns + LENT)
        out[:, :, :keep] = 0 if old is None else old
        self.columns.widen_into(out[:, :, keep:], x)
        self._new.append(out[:, :, -keep:].clone())
        return out

    def record(self, history: Tensor | None) -> None:
        """Record the history of a layer that does not convolve over the first latent frame."""
        self._take()
        self._new.append(history)

    def finish(self) -> History:
        """The history after this call; every layer must have passed."""
        assert self.first or len(self._new) == len(self._old), "history of another network"
        return tuple(self._new)

    def _take(self) -> Tensor | None:
        if self.first:
            return None
        layer = len(self._new)
        slot, self._old[layer] = self._old[layer], None
        return slot
