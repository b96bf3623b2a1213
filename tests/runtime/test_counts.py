"""Bounded for ever, by counts: what is held after a hundred chunks is held after three hundred."""

from __future__ import annotations

import pytest

from tests import tiny
from worldline.bench.census import Census, take_census
from worldline.core.config import EngineOptions
from worldline.runtime.conditions import Controls

REANCHOR_AT = 64  # latent frames; the walk has 300, one per chunk
WALK: list[Controls] = [[("w", "l")], None, [("s", "i")], [("j",)]]
PROMPTS = {40: "a green valley", 80: "a frozen lake at night", 150: "a desert", 240: "a wide sea"}
# What it was is kept up to a limit that a walk of 300 chunks does not reach.
PLAIN = EngineOptions(timeline_mb=0)
EVERYTHING = EngineOptions(
    timeline_mb=0,
    recache=True,
    kv="8bit",
    lossy=("still_window=6", "sink_distance=40", "last_step_kv"),
)


def counted() -> Census:
    """The census without what the allocator decides."""
    return take_census()._replace(resident_mb=None)


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything on"])
def test_a_session_holds_the_same_at_chunk_100_and_300(options: EngineOptions) -> None:
    world = tiny.world(options=options, reanchor_at=REANCHOR_AT)
    # As in a long run: the cache of prompts is full before the count begins.
    world.shared.texts._capacity = 1
    moves, shifts, held = 0, 0, {}
    with world.start(tiny.picture(), tiny.PROMPT, steps=1, chunk=1) as session:
        state = session.state
        for chunk in range(300):
            anchor, shift = state.anchor, state.sink_shift
            session.step(
                WALK[chunk % 4], prompt=PROMPTS.get(chunk), blend_chunks=3 * (chunk % 20 // 10)
            )
            session.prepare()
            moves += state.anchor != anchor
            shifts += state.sink_shift != shift
            assert state.next_frame - state.anchor <= REANCHOR_AT
            if chunk + 1 in (100, 300):
                held[chunk + 1] = counted()
    assert moves >= 7
    assert (shifts >= 7) == bool(options.lossy)
    assert held[100] == held[300]
    assert held[100].tensors.number > 50
