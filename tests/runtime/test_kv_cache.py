"""The ring: which frames it holds, where, and that it equals attention over a rolled history."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.ops.attention import attention
from worldline.runtime.kv_cache import KVRing, RingParams, slot_of

HEADS, DIM, TOKENS = 2, 4, 3


def ring(window: int, sink: int, limit: int | None = None) -> KVRing:
    params = RingParams(1, HEADS, DIM, TOKENS, window, sink, limit)
    return KVRing(params, dtype=torch.float32, device="cpu")


def frame_tensor(start: int, count: int, salt: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 + start)
    return torch.randn(1, count * TOKENS, HEADS, DIM, generator=generator) + salt


def official_frames(chunks: list[int], window: int, sink: int) -> list[int]:
    """The frames the official eviction leaves: drop the oldest after the sink until it fits."""
    held: list[int] = []
    start = 0
    for count in chunks:
        held += range(start, start + count)
        start += count
        while window != -1 and len(held) > window:
            del held[sink]
    return held


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_holds_what_the_official_eviction_holds(data: st.DataObject) -> None:
    sink = data.draw(st.integers(0, 3))
    biggest = data.draw(st.integers(1, 4))
    window = data.draw(st.sampled_from([-1, *range(sink + biggest, sink + biggest + 6)]))
    chunks = data.draw(st.lists(st.integers(1, biggest), min_size=1, max_size=9))
    cache, start = ring(window, sink), 0
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}
    all_k = all_v = torch.empty(0)
    for i, count in enumerate(chunks):
        cache.begin_chunk(start, count)
        for draft in (5.0, 0.0):  # two passes write the same slots; the last one counts
            k, v = frame_tensor(start, count, draft), frame_tensor(start, count, draft + 1)
            q = frame_tensor(start, count, 2.0)
            out = cache(0, q, k, v)
            for j in range(count):
                keys[start + j] = k[:, j * TOKENS : (j + 1) * TOKENS]
                values[start + j] = v[:, j * TOKENS : (j + 1) * TOKENS]
            frames = official_frames(chunks[: i + 1], window, sink)
            all_k = torch.cat([keys[f] for f in frames], dim=1)
            all_v = torch.cat([values[f] for f in frames], dim=1)
            torch.testing.assert_close(out, attention(q, all_k, all_v), atol=1e-5, rtol=1e-5)
        start += count
    held_k, held_v = cache.in_time_order(0, start)
    assert torch.equal(held_k, all_k)
    assert torch.equal(held_v, all_v)


def test_slots_follow_the_rule() -> None:
    assert [slot_of(f, 7, 2) for f in range(13)] == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2]
    assert slot_of(123456, -1, 2) == 123456


def test_buffers_stay_where_they_are() -> None:
    cache = ring(5, 1)
    addresses = [t.data_ptr() for t in (*cache.keys, *cache.values)]
    size = cache.nbytes
    for start in range(0, 30, 2):
        cache.begin_chunk(start, 2)
        cache(0, *(frame_tensor(start, 2, s) for s in (0.0, 1.0, 2.0)))
    assert [t.data_ptr() for t in (*cache.keys, *cache.values)] == addresses
    assert cache.nbytes == size == 2 * 5 * TOKENS * HEADS * DIM * 4


def test_unfilled_slots_are_never_attended() -> None:
    cache = ring(6, 0)
    for buffer in (*cache.keys, *cache.values):
        buffer.fill_(float("nan"))
    seen = []
    for start in range(0, 12, 2):
        cache.begin_chunk(start, 2)
        out = cache(0, *(frame_tensor(start, 2, s) for s in (0.0, 1.0, 2.0)))
        assert out.isfinite().all()
        seen.append(cache.visible_tokens // TOKENS)
    assert seen == [2, 4, 6, 6, 6, 6]


def test_limit_keeps_the_newest_frames_in_time_order() -> None:
    cache = ring(6, 2, limit=3)
    keys: list[torch.Tensor] = []
    for start in range(9):
        cache.begin_chunk(start, 1)
        q, k, v = (frame_tensor(start, 1, s) for s in (0.0, 1.0, 2.0))
        out = cache(0, q, k, v)
        keys.append(k)
        newest = torch.cat(keys[-3:], dim=1)
        torch.testing.assert_close(out, attention(q, newest, newest + 1), atol=1e-6, rtol=1e-6)


def test_a_chunk_that_does_not_fit_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="window"):
        ring(4, 2).begin_chunk(0, 3)


def test_growing_keeps_everything() -> None:
    cache = ring(-1, 0)
    capacities = set()
    for start in range(0, 40, 4):
        cache.begin_chunk(start, 4)
        cache(0, *(frame_tensor(start, 4, s) for s in (0.0, 1.0, 2.0)))
        capacities.add(cache.keys[0].shape[1] // TOKENS)
    assert cache.visible_tokens == 40 * TOKENS
    assert capacities == {4, 8, 16, 32, 64}
    held, _ = cache.in_time_order(0, 40)
    expected = torch.cat([frame_tensor(s, 4, 1.0) for s in range(0, 40, 4)], dim=1)
    assert torch.equal(held, expected)
