"""Counts, not clocks: after thirty chunks and after ninety a session holds the same."""

from __future__ import annotations

import gc

import msgspec
import pytest
import torch

from tests import tiny
from tests.bench import tiny_engine
from worldline.bench import census
from worldline.bench.census import Census, take_census
from worldline.bench.chunk import ChunkRequest
from worldline.bench.soak import (
    Part,
    SoakFigures,
    as_panels,
    as_table,
    counts_held,
    measure_soak,
    part_ends,
    slope_per_hour,
)
from worldline.core.config import EngineOptions
from worldline.models.lingbot.blocks import Attention
from worldline.models.wan.vae_state import VaeState
from worldline.ops.packed import PackedLinear, can_pack, pack_linears
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import StepRequest

NO_TIMELINE = EngineOptions(timeline_mb=0)  # it grows up to its budget, by design
WALK = (("w",), ("w", "l"), (), ("s", "i"))
PROMPTS = {20: "a green valley", 50: "a frozen lake at night", 80: "a desert"}


def counts(taken: Census) -> Census:
    """The census without what the allocator decides."""
    return taken._replace(resident_mb=None)


def test_a_session_holds_the_same_at_chunk_30_and_90() -> None:
    """Walking, turning, new prompts with blends, and an origin of time that moves many times."""
    world = tiny.world(reanchor_at=tiny_engine.REANCHOR_AT, options=NO_TIMELINE)
    # As in a long run: the cache of prompts is full before the count begins.
    world.shared.texts._capacity = 1
    moves, held = 0, {}
    with world.start(tiny.picture(), tiny.PROMPT, steps=2) as session:
        for chunk in range(90):
            anchor = session.state.anchor
            session.step(
                [WALK[chunk % 4]] * 3, prompt=PROMPTS.get(chunk), blend_chunks=chunk % 20 // 10
            )
            session.prepare()
            moves += session.state.anchor != anchor
            if chunk + 1 in (30, 90):
                held[chunk + 1] = counts(take_census())
    assert moves > 10
    assert held[30] == held[90]
    assert held[30].tensors.number > 50


def test_closing_gives_everything_back() -> None:
    world = tiny.world()
    with world.start(tiny.picture(), tiny.PROMPT) as session:
        session.step()  # the world itself keeps the prompt's states
    del session
    before = counts(take_census())
    for _ in range(3):
        with world.start(tiny.picture(), tiny.PROMPT) as session:
            session.step()
        del session
    assert counts(take_census()) == before


def test_a_worker_holds_the_same_at_chunk_30_and_90() -> None:
    """Descriptors and shared memory of both processes, frames crossing between them."""
    handle = WorkerHandle.spawn(tiny_engine.settings())
    held: dict[int, list[int | None]] = {}
    try:
        handle.open(tiny_engine.open_request("a"))
        for chunk in range(90):
            walk = (WALK[chunk % 4],) * 3
            with handle.step(StepRequest(session_id="a", chunk_index=chunk, actions=walk)):
                pass
            if chunk + 1 in (30, 90):
                gc.collect()
                held[chunk + 1] = [
                    count(pid)
                    for pid in (None, handle.pid)
                    for count in (census.descriptors, census.shared_segments)
                ]
        handle.close("a")
    finally:
        handle.shutdown()
    assert held[30] == held[90]


def test_what_is_held_is_seen() -> None:
    before = take_census()
    kept = torch.zeros(1024)
    view = kept[:10]  # another tensor on the same memory
    after = take_census()
    assert after.tensors.number == before.tensors.number + 2
    assert after.tensors.nbytes == before.tensors.nbytes + 4096
    assert view.numel() == 10
    with open(__file__) as file:
        assert census.descriptors() == (before.descriptors or 0) + 1
        assert file.fileno() >= 0


def test_tensors_are_found_wherever_our_objects_keep_them() -> None:
    a, b, c = (torch.zeros(2) for _ in range(3))
    history = VaeState("decode", 3, (a, None, b))  # in slots, not in a dictionary
    found = list(census.tensors_in({"state": [history], "other": (c, c)}))
    assert sorted(map(id, found)) == sorted(map(id, (a, b, c)))
    assert census.mb_of(history) == pytest.approx(16 / 2**20, abs=1e-3)


@pytest.mark.skipif(not can_pack(torch.float32), reason="this torch cannot pack")
def test_packed_weights_weigh_as_much_as_they_hold() -> None:
    layer = PackedLinear(torch.nn.Linear(256, 512, bias=False))
    assert census.weigh(census.tensors_in(layer)).nbytes == 512 * 256 * 4
    with torch.no_grad():
        layer(torch.zeros(1, 256))  # packs what it needs
    assert census.weigh(census.tensors_in(layer)).nbytes == 2 * 512 * 256 * 4

    own = Attention(tiny.dit_params())
    pack_linears(own)
    own.join()  # held by the module, but neither parameter nor module of it
    before = census.weigh(census.tensors_in(own)).nbytes
    with torch.no_grad():
        own.project(torch.zeros(1, 3, 48))
    assert census.weigh(census.tensors_in(own)).nbytes == before + 3 * 48 * 48 * 4


@pytest.fixture(scope="module")
def figures() -> SoakFigures:
    """A short run of the small model."""
    done: list[tuple[int, int]] = []
    world = tiny.world(reanchor_at=tiny_engine.REANCHOR_AT, options=NO_TIMELINE)
    found = measure_soak(world, ChunkRequest(chunks=33, steps=1), lambda *pair: done.append(pair))
    assert done[-1] == (33, 33) and len(done) == 33
    return found


def test_a_short_run_is_told_in_tenths(figures: SoakFigures) -> None:
    assert [p.first for p in figures.parts] == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    assert figures.parts[-1].last == 32
    assert figures.counts_held
    assert figures.reanchored > 3
    assert 0 < figures.chunk_ms_p50 <= figures.chunk_ms_p99
    assert figures.p99_over_p50 >= 1
    lines = as_table(figures).splitlines()
    assert len(lines) == 6 + len(figures.parts)
    assert [len(panel.x) for panel in as_panels(figures)] == [9, 9]
    assert msgspec.json.decode(msgspec.json.encode(figures), type=SoakFigures) == figures


def test_long_runs_are_told_in_thousands() -> None:
    assert part_ends(10_000) == list(range(1000, 10_001, 1000))
    assert part_ends(2500) == [1000, 2000, 2500]
    assert part_ends(10) == list(range(1, 11))
    assert part_ends(1) == [1]


def test_slope() -> None:
    points: list[tuple[float, float | None]] = [(0, 10), (1800, 11), (2000, None), (3600, 12)]
    assert slope_per_hour(points) == pytest.approx(2.0)
    assert slope_per_hour([(0, 1.0), (10, None), (20, 2.0)]) is None


def test_a_leak_is_said(figures: SoakFigures) -> None:
    part: Part = figures.parts[-1]
    more = msgspec.structs.replace(part, tensors=part.tensors + 1)
    assert counts_held([part, part])
    assert not counts_held([part, more])
    leaky = msgspec.structs.replace(figures, counts_held=False)
    assert "CHANGED" in as_table(leaky)
