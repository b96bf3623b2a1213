"""The most that tensors take while something runs, counted on any device: meta tensors included.

Counts what is allocated while it watches; what existed before is not its business, and neither is
what a kernel takes for itself and gives back before it returns.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

R = TypeVar("R")


class LivePeak(TorchDispatchMode):
    """`now` and `peak` bytes of the storages that operators made since this mode was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes by storage; 0 for those made by others

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and look at what it returns."""
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, ours=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._meet(tensor, ours=True)
        return result

    def _meet(self, tensor: Tensor, *, ours: bool) -> None:
        if tensor.is_mkldnn:  # packed weights: made once, by nobody's chunk
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if ours else 0
        self._known[key] = size
        weakref.finalize(storage, self._gone, key)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


class DryRun(TorchFunctionMode):
    """What meta tensors need so that an engine can run on them.

    Attention allocates nothing but its result, as a fused kernel does; nothing is pinned.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, or what stands in for it."""
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        if func is Tensor.pin_memory:
            return args[0]
        return func(*args, **(kwargs or {}))


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that tensors made by `run` took at once, in bytes."""
    with LivePeak() as live:
        run()
    return live.peak


def _tensors(tree: object) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
