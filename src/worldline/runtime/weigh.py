"""How many bytes tensors take, wherever they are held: in modules, containers, our own objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Tensors(NamedTuple):
    """How many tensors, and the bytes of the memory under them, each block counted once."""

    number: int
    nbytes: int


def weigh(tensors: Iterable[Tensor]) -> Tensors:
    """Count tensors and the bytes of their distinct storages; meta tensors weigh nothing."""
    number, blocks = 0, dict[tuple[int, torch.device], int]()
    for tensor in tensors:
        number += 1
        if tensor.is_mkldnn:  # packed weights have no storage that torch could show
            blocks[id(tensor), tensor.device] = tensor.numel() * tensor.element_size()
        elif not tensor.is_meta:
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr(), tensor.device] = storage.nbytes()
    return Tensors(number, sum(blocks.values()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor inside our own objects, containers and modules, each object visited once."""
    seen: set[int] = set()
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, nn.Module):
            todo += [*item.parameters(), *item.buffers()]
            # What a module of ours holds besides: nothing of this may be forgotten.
            todo += [v for m in item.modules() for v in vars(m).values() if _is_ours(v)]
        elif isinstance(item, Mapping):
            todo += item.values()
        elif isinstance(item, (tuple, list, set, frozenset)):
            todo += item
        elif _is_ours(item):
            todo += _attributes(item)


def _is_ours(item: Any) -> bool:
    return type(item).__module__.startswith("worldline.")


def _attributes(item: Any) -> Iterator[Any]:
    """What one of our own objects holds, in its dictionary and in its slots."""
    yield from getattr(item, "__dict__", {}).values()
    for base in type(item).__mro__:
        for name in getattr(base, "__slots__", ()):
            yield getattr(item, name, None)
