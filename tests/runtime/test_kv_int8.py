"""The ring in int8: the same frames in the same places, within what eight bits can hold."""

from __future__ import annotations

import torch

from worldline.ops.attention import SlotAttend
from worldline.ops.rope import apply_rope, rope_table
from worldline.runtime.kv_cache import FrameRing, KVRing, RingParams
from worldline.runtime.kv_int8 import Int8Ring

TOKENS, HEADS, DIM = 3, 2, 32


def rings(window: int = 6) -> tuple[KVRing, Int8Ring]:
    params = RingParams(2, HEADS, DIM, TOKENS, window, 1 if window > 0 else 0)
    return (
        KVRing(params, dtype=torch.float32, device="cpu"),
        Int8Ring(params, dtype=torch.float32, device="cpu"),
    )


def walk(ring: FrameRing, chunks: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    out = torch.empty(0)
    for chunk in range(chunks):
        ring.begin_chunk(2 * chunk, 2)
        for layer in range(2):
            q, k, v = torch.randn(3, 1, 2 * TOKENS, HEADS, DIM, generator=generator)
            out = ring(layer, q, k, v)
    return out


def test_eight_bits_are_near_and_take_half_of_sixteen() -> None:
    full, small = rings()
    near = (walk(full, 7) - walk(small, 7)).abs().max()
    assert 0 < near < 0.02
    assert small.nbytes == full.nbytes // 4 + full.nbytes // DIM  # a scale per token and head
    assert isinstance(full, SlotAttend) and not isinstance(small, SlotAttend)


def test_turning_is_within_one_more_rounding() -> None:
    full, small = rings()
    walk(full, 5)
    walk(small, 5)
    before = full.in_time_order(1, 10)[0]
    table = rope_table([-7], 1, 1, head_dim=DIM)
    for ring in (full, small):
        ring.turn(table)
    assert torch.equal(full.in_time_order(1, 10)[0], apply_rope(before, table))
    off = full.in_time_order(1, 10)[0] - small.in_time_order(1, 10)[0]
    assert 0 < off.abs().max() < 0.05


def test_it_grows() -> None:
    full, small = rings(window=-1)
    assert (walk(full, 6) - walk(small, 6)).abs().max() < 0.02


def test_what_was_taken_can_be_put_elsewhere() -> None:
    for source, other in zip(rings(), rings(), strict=True):
        walk(source, 5)
        frames = source.present_frames(10)
        other.put(frames, source.take(frames))
        for layer in range(2):
            for ours, theirs in zip(
                other.in_time_order(layer, 10), source.in_time_order(layer, 10), strict=True
            ):
                assert torch.equal(ours, theirs)
        taken = source.take(frames)
        taken[0].zero_()
        assert source.buffers()[0].any()


def test_a_ring_adopts_what_another_kind_holds() -> None:
    full, small = rings()
    walk(full, 5)
    small.adopt(full)
    again, _ = rings()
    again.adopt(full)
    for ring, bound in ((small, 0.02), (again, 0.0)):
        ours, theirs = ring.in_time_order(0, 10), full.in_time_order(0, 10)
        assert all((a - b).abs().max() <= bound for a, b in zip(ours, theirs, strict=True))
