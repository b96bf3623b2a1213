"""Ranks as threads of one process, over real gloo groups: every collective is the true one.

For comparisons and tests of a few ranks; nothing is set up in the process and nothing is left of
it. For speed there are processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from worldline.runtime.parallel.group import Group, over_store

T = TypeVar("T")


def on_ranks(size: int, run: Callable[[Group], T], *, patience_s: float = 30.0) -> list[T]:
    """What `run` returns on each of `size` ranks; the first error of any is raised."""
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def rank(number: int) -> None:
        try:
            group = over_store(store, number, size, patience_s=patience_s)
            results[number] = run(group)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(size)]
