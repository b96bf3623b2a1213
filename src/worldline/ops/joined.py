"""Linear layers of the same input as one product; inference only.

Their weights become views of one tensor: nothing is held twice, and each layer works alone as well.
One large product fills a GPU better than three small ones; on a CPU it saves two calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldline.ops.packed import PackedLinear, can_pack


class JoinedLinear:
    """One product for several layers, for as long as they hold the weights it was made of.

    No module: parameters and state dict stay those of the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """Lay the parameters of `layers` side by side; they need equal inputs, dtype and device."""
        first, self._sizes = layers[0], [layer.out_features for layer in layers]
        assert all(layer.in_features == first.in_features for layer in layers), "one input"
        assert all(layer.bias is not None for layer in layers), "every layer has a bias"
        whole = nn.Linear(first.in_features, sum(self._sizes), device="meta")
        with torch.no_grad():
            for name in ("weight", "bias"):
                parts = [getattr(layer, name) for layer in layers]
                joined = torch.cat(parts)
                setattr(whole, name, nn.Parameter(joined, requires_grad=False))
                for part, view in zip(parts, joined.split(self._sizes), strict=True):
                    part.data = view
        self._whole: nn.Linear = whole
        self._state = _state(layers)

    def pack(self) -> None:
        """Keep a packed copy for the CPU, as `ops.packed` does."""
        if can_pack(self._whole.weight.dtype):
            self._whole = PackedLinear(self._whole)

    def holds(self, layers: Sequence[nn.Module]) -> bool:
        """Whether `layers` still have the weights of this product, unmoved and unchanged."""
        return _state(layers) == self._state

    def follow(self, layers: Sequence[nn.Module]) -> None:
        """`layers` still lie in this product and were written to: it is made of that now."""
        now = _state(layers)
        if [place for place, _ in now] != [place for place, _ in self._state]:
            return  # exchanged: they no longer belong to it
        self._state = now
        if isinstance(self._whole, PackedLinear):
            self._whole.pack_again()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x [..., in]` -> the layers' outputs, views of one tensor `[..., sum of out]`."""
        return self._whole(x).split(self._sizes, dim=-1)


def _state(layers: Sequence[nn.Module]) -> list[tuple[int, int]]:
    """Changes whenever a weight is moved, exchanged or written to."""
    weights = (layer.weight for layer in layers)
    return [(w.data_ptr(), w._version) for w in weights if isinstance(w, Tensor)]
