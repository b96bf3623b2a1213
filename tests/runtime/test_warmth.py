"""A warm worker makes nothing for the first time while a visitor waits."""

from __future__ import annotations

import msgspec
import pytest

from tests import tiny
from tests.runtime.test_graphs import graphed
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.ring_pool import RingPool
from worldline.runtime.session import Session
from worldline.runtime.warmth import Built, built
from worldline.server.warmup import enough_chunks

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]


def warm_up(world: World) -> None:
    """The server's: as many walks as memories stay, for as many chunks as the model needs."""
    seeds = range(world.info.rings)
    sessions = [world.start(tiny.picture(9), "a grey wall", seed) for seed in seeds]
    for _ in range(enough_chunks(world.info)):
        for session in sessions:
            session.step([("w", "l")] * session.chunk)
            session.prepare()
    for session in sessions:
        session.close()


def visit(session: Session, chunks: int = 14) -> None:
    with session:
        for i in range(chunks):
            session.step(WALK[i % 3], prompt="a frozen lake at night" if i == 5 else None)
            session.prepare()


@pytest.mark.parametrize("graphs", [False, True])
def test_the_first_visitor_finds_everything_built(graphs: bool) -> None:
    world = tiny.world(window=10)
    if graphs:
        world, _ = graphed(world)
        world.info = msgspec.structs.replace(world.info, rings=2)
    assert world.info.encoded == world.components.vae.stationary_latent + 1
    warm_up(world)
    warm = built(world.shared)
    assert warm.stationary == 1 and warm.buffers == 1
    assert (warm.graphs > 0) == graphs and warm.rings == 2 * graphs
    visitors = [world.start(tiny.picture(i), tiny.PROMPT, i) for i in range(2)]
    for visitor in visitors:
        visit(visitor)
    assert built(world.shared) == warm


def test_too_short_a_warm_up_is_seen() -> None:
    """The count can fail: one chunk leaves graphs, and the picture's end, to the visitor."""
    world, _ = graphed(tiny.world(window=10))
    with world.start(tiny.picture(9), "a grey wall") as session:
        session.step()
    cold = built(world.shared)
    visit(world.start(tiny.picture(), tiny.PROMPT))
    later = built(world.shared)
    assert later.graphs > cold.graphs and later.stationary > cold.stationary == 0


def test_another_size_is_another_ring() -> None:
    world, _ = graphed(tiny.world())
    assert isinstance(world.shared.rings, RingPool)
    visit(world.start(tiny.picture(), tiny.PROMPT), 4)
    before = built(world.shared)
    visit(world.start(tiny.picture(), tiny.PROMPT, window=9), 4)
    assert built(world.shared).rings == before.rings + 1
    assert isinstance(before, Built)
