"""One encode per prompt, the oldest leave first, and a written-into entry is not trusted."""

from __future__ import annotations

import torch

from tests import tiny
from worldline.runtime.text_cache import TextCache


def encode(prompt: str) -> torch.Tensor:
    return torch.full((1, 2, 3), float(len(prompt)))


def test_least_recently_used_leaves_first() -> None:
    cache = TextCache(encode, capacity=2)
    first = cache.get("a")
    assert cache.get("a") is first
    cache.get("bb")
    cache.get("a")
    cache.get("ccc")
    assert len(cache) == 2
    assert cache.get("a") is first
    assert cache.encoded == 3
    cache.get("bb")
    assert cache.encoded == 4


def test_entry_that_was_written_into_is_encoded_again() -> None:
    cache = TextCache(encode)
    cache.get("a").states.add_(1)
    assert torch.equal(cache.get("a").states, encode("a"))
    assert cache.encoded == 2


def test_sessions_share_prompts() -> None:
    world = tiny.world()
    one, two = (world.start(tiny.picture(), tiny.PROMPT) for _ in range(2))
    assert one.engine.texts.encoded == 1
    one.step(prompt="a frozen lake")
    two.step(prompt="a frozen lake")
    assert one.engine.texts is two.engine.texts
    assert one.engine.texts.encoded == 2
