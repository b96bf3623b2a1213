"""Named caches compute once per what a value depends on, and see writes into their sources."""

from __future__ import annotations

import gc
import weakref

import torch

from worldline.runtime.step_cache import StepCache


def test_one_live_entry_per_name() -> None:
    cache = StepCache()
    assert cache.get("a", 1, lambda: "one") == "one"
    assert cache.get("a", 1, lambda: "never") == "one"
    assert cache.get("a", 2, lambda: "two") == "two"
    assert cache.get("a", 1, lambda: "again") == "again"
    assert len(cache) == 1
    assert cache.computed["a"] == 3


def test_write_into_a_source_recomputes() -> None:
    cache, source = StepCache(), torch.ones(3)

    def value() -> float:
        return float(cache.get("sum", (), lambda: source.sum(), sources=(source,)))

    assert value() == 3
    source.add_(1)
    assert value() == 6
    assert value() == 6
    assert cache.computed["sum"] == 2


def test_another_source_of_equal_content_recomputes() -> None:
    cache = StepCache()
    for _ in range(2):
        source = torch.ones(3)
        cache.get("sum", (), source.sum, sources=(source,))
    assert cache.computed["sum"] == 2


def test_replaced_and_cleared_values_are_freed() -> None:
    cache = StepCache()
    seen = [
        weakref.ref(cache.get("x", 1, lambda: torch.zeros(4))),
        weakref.ref(cache.get("x", 2, lambda: torch.zeros(4))),
    ]
    gc.collect()
    assert seen[0]() is None
    assert seen[1]() is not None
    cache.clear()
    gc.collect()
    assert seen[1]() is None
    assert len(cache) == 0
