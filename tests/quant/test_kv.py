"""The int8 cache: what is written comes back, and a turn quantises from the turned value."""

from __future__ import annotations

import torch

from worldline.ops.rope import apply_rope, rope_table
from worldline.quant.kv import Int8Cache
from worldline.quant.rows import from_rows, to_int8

TOKENS, HEADS, DIM = 6, 2, 16


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def full_cache() -> tuple[Int8Cache, torch.Tensor]:
    cache = Int8Cache(TOKENS, HEADS, DIM, device="cpu")
    rows = noise(1, TOKENS, HEADS, DIM)
    cache.write(torch.arange(TOKENS), rows)
    return cache, rows


def test_written_rows_come_back_rounded_once() -> None:
    cache, rows = full_cache()
    for dtype in (torch.float32, torch.bfloat16):
        expected = from_rows(to_int8(rows), torch.float32).to(dtype)
        assert torch.equal(cache.read(TOKENS, dtype), expected)
        assert torch.equal(cache.read(4, dtype), expected[:, :4])
        index = torch.tensor([5, 1])
        assert torch.equal(cache.read(index, dtype), expected[:, index])


def test_other_tokens_stay_as_they_were() -> None:
    cache, _ = full_cache()
    before = cache.read(TOKENS, torch.float32)
    cache.write(torch.tensor([1, 3]), noise(1, 2, HEADS, DIM, seed=9))
    after = cache.read(TOKENS, torch.float32)
    kept = torch.tensor([0, 2, 4, 5])
    assert torch.equal(after[:, kept], before[:, kept])
    assert not torch.equal(after[:, 1], before[:, 1])


def test_a_turn_is_quantised_from_the_turned_value() -> None:
    cache, _ = full_cache()
    table = rope_table([-300], 1, 1, head_dim=DIM)
    turned = apply_rope(cache.read(TOKENS, torch.float32), table)
    cache.change(lambda rows: apply_rope(rows, table), TOKENS)
    assert torch.equal(cache.read(TOKENS, torch.float32), from_rows(to_int8(turned), torch.float32))


def test_it_takes_a_byte_per_number_and_four_per_row() -> None:
    cache, _ = full_cache()
    assert cache.nbytes == TOKENS * HEADS * (DIM + 4)
