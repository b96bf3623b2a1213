"""Values made of tensors, tuples, lists and dataclasses: walk through them, or rebuild them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
Change = Callable[[Tensor], Tensor]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in `value`, always in the same order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))


def signature(value: Any) -> Hashable:
    """All of `value` that is no tensor, with shape and dtype in the place of each tensor.

    Objects that are neither are told apart by what they are equal to, or by identity.
    """
    if isinstance(value, Tensor):
        return (value.shape, value.dtype, value.device)
    if isinstance(value, (tuple, list)):
        return (type(value), *(signature(item) for item in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return (type(value), *(signature(getattr(value, name)) for name in names))
    return value if isinstance(value, Hashable) else id(value)


def map_tensors(value: T, change: Change) -> T:
    """`value` with every tensor replaced by `change` of it; everything else stays."""
    return _mapped(value, change)


def _mapped(value: Any, change: Change) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, change) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        changed = {name: _mapped(getattr(value, name), change) for name in fields}
        return dataclasses.replace(value, **changed)
    return value
