"""A device that is not there: computes on the CPU and writes down what a GPU would wait for.

Tensors "on" it are `OnDevice`, under torch's device name `meta`. Inside `CountingDevice` everything
made for that device is one of them, and `log` holds, in order, each operation that makes the host
wait (`sync`) and each copy between host and device (`upload`, `download`, with `waits`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
# They read a value on the host, or make a tensor whose shape depends on values.
WAITING = (
    "_local_scalar_dense",
    "is_nonzero",
    "item",
    "equal",
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "bincount",
    "allclose",
    "is_pinned",
)
COPIES = ("_to_copy", "copy_", "_copy_from_and_resize", "_pin_memory")


class Event(NamedTuple):
    """What happened: `sync`, `upload` or `download`, by which operation, and if the host waits."""

    kind: str
    name: str
    waits: bool


class OnDevice(torch.Tensor):
    """A tensor of the device; `elem` has its values."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            elem.shape,
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, elem: Tensor) -> None:
        self.elem = elem

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.elem!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {}, [])


class CountingDevice(TorchDispatchMode):
    """Makes the device available and keeps the log."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Event] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {}, self.log)

    @property
    def waits(self) -> list[Event]:
        """What the host would have waited for."""
        return [event for event in self.log if event.waits]


def compute(func: Any, args: Any, kwargs: dict[str, Any], log: list[Event]) -> Any:
    """Run one operation on the CPU, writing down what crosses."""
    name = func.overloadpacket.__name__
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    ours = [x for x in flat if isinstance(x, OnDevice)]
    asked = kwargs.get("device")
    there = bool(ours) if asked is None else torch.device(asked) == DEVICE
    _note(name, args, kwargs, there=there, log=log)
    if name not in COPIES:
        mixed = [x.shape for x in flat if not isinstance(x, OnDevice) and x.dim()]
        assert not (ours and mixed), f"{name} mixes devices: {mixed}"
    if asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    homes = {id(x.elem): x for x in ours}
    bare = tree_map(lambda x: x.elem if isinstance(x, OnDevice) else x, (args, kwargs))
    out = func(*bare[0], **bare[1])
    if name == "copy_":
        return args[0]
    if not there:
        return out

    def home(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return homes[id(x)] if id(x) in homes else OnDevice(x)

    return tree_map(home, out)


def _note(name: str, args: Any, kwargs: Any, *, there: bool, log: list[Event]) -> None:
    first = args[0] if args else None
    if name in WAITING and isinstance(first, OnDevice):
        log.append(Event("sync", name, waits=True))
    if name in ("index", "index_put", "index_put_") and isinstance(first, OnDevice):
        masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
        if masks:
            log.append(Event("sync", f"{name} by a mask", waits=True))
    if name == "repeat_interleave" and isinstance(first, OnDevice):
        log.append(Event("sync", name, waits=kwargs.get("output_size") is None))
    if name in ("_to_copy", "copy_"):
        source, target = (first, there) if name == "_to_copy" else (args[1], _is(first))
        if _is(source) != target:
            asked = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            log.append(Event("upload" if target else "download", name, waits=not asked))


def _is(x: object) -> bool:
    return isinstance(x, OnDevice)


def move(module: nn.Module) -> None:
    """Put a module's parameters and buffers on the device."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnDevice(parameter.data), requires_grad=False)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
