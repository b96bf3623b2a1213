"""The most that tensors take while something runs, in a worker that has other things to do.

The storages of all tensors that Python sees are counted; what an operator takes for itself is not,
which on a GPU depends on the algorithm it happens to choose. `bench.live` and `bench.workspace` see
more, and load parts of torch for it that a worker does without.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Storages:
    """`now` and `peak` bytes of the storages that were met as ours."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes by storage; 0 for those made by others

    def meet(self, tree: object, *, ours: bool) -> None:
        """Look at every tensor in containers; what is known already stays what it is."""
        for tensor in tensors_of(tree):
            if tensor.is_mkldnn:  # packed weights: made once, by nobody's chunk
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes() if ours else 0
            self._known[key] = size
            weakref.finalize(storage, self._gone, key)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


class FunctionPeak(TorchFunctionMode):
    """Counts what torch's functions return while it is entered; `storages` has the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.storages = Storages()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call one function and look at what goes in and comes out."""
        self.storages.meet((args, kwargs), ours=False)
        result = func(*args, **(kwargs or {}))
        self.storages.meet(result, ours=True)
        return result


def taken(run: Callable[[], object]) -> int:
    """Bytes of the tensors that `run` makes, at the worst moment."""
    with FunctionPeak() as mode:
        run()
    return mode.storages.peak


def tensors_of(tree: object) -> Iterable[Tensor]:
    """Every tensor in plain containers."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
