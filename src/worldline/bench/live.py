"""The most that tensors take while something runs, counted on any device: meta tensors included.

Counts what is allocated while it watches; what existed before is not its business, and neither is
what a kernel takes for itself and gives back before it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from worldline.runtime.peak import Storages


class LivePeak(TorchDispatchMode):
    """`now` and `peak` bytes of the storages that operators made since this mode was entered."""

    def __init__(self) -> None:
        super().__init__()
        self._storages = Storages()

    @property
    def now(self) -> int:
        """Bytes that are alive."""
        return self._storages.now

    @property
    def peak(self) -> int:
        """The most that was alive at once."""
        return self._storages.peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and look at what it returns."""
        self._storages.meet((args, kwargs), ours=False)
        result = func(*args, **(kwargs or {}))
        self._storages.meet(result, ours=True)
        return result


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
