"""Recorded passes: which graph is whose, what is copied into place when, and that nothing is stale.

The backend here runs what it was given to record, on the addresses it was recorded with; a place
that was not written, or a graph of another shape, shows in the frames.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.graphs import GraphedPasses, Places, Recorded
from worldline.runtime.ring_pool import RingPool
from worldline.runtime.tree import tensors_of

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
FULL = 3  # chunks of three until the window of seven is full


class FakeGraphs:
    """Replays by running once more; counts both."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, run: Callable[[], Any]) -> Recorded:
        """See `GraphBackend`."""
        self.recorded += 1
        output = run()

        def replay() -> None:
            self.replayed += 1
            for place, made in zip(tensors_of(output), tensors_of(run()), strict=True):
                place.copy_(made)

        return Recorded(replay, output)


def graphed(world: World, *, capacity: int = 64, idle: int = 2) -> tuple[World, GraphedPasses]:
    passes = GraphedPasses(world.shared.passes, FakeGraphs(), capacity=capacity)
    rings = RingPool(idle=idle, drop=passes.forget)
    world.shared = world.shared._replace(passes=passes, rings=rings)
    return world, passes


def walk(world: World, chunks: int = 7, **start: Any) -> list[NDArray[np.uint8]]:
    with world.start(tiny.picture(), tiny.PROMPT, 3, **start) as session:
        return [
            session.step(
                WALK[i % 3] if session.chunk == 3 else None,
                prompt="a frozen lake at night" if i == 4 else None,
                blend_chunks=2,
            ).frames
            for i in range(chunks)
        ]


def same(a: list[NDArray[np.uint8]], b: list[NDArray[np.uint8]]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "kind", [{}, {"reanchor_at": 8}, {"options": EngineOptions(camera_cache="off", kv="8bit")}]
)
def test_replayed_chunks_have_the_bits_of_plain_ones(kind: dict[str, Any]) -> None:
    world, passes = graphed(tiny.world(**kind))
    assert same(walk(tiny.world(**kind)), walk(world))
    assert passes.built > 0


def test_one_graph_per_fill_level_and_then_one_for_ever() -> None:
    world, passes = graphed(tiny.world())
    built = []
    with world.start(tiny.picture(), tiny.PROMPT) as session:
        for i in range(9):
            session.step(WALK[i % 3])
            built.append(passes.built)
    # Each level: a denoise and a context pass; and one graph for the camera of all of them.
    assert built == [3, 5, 7, 7, 7, 7, 7, 7, 7]


def test_the_next_session_takes_ring_and_graphs_over() -> None:
    world, passes = graphed(tiny.world(without={"first_chunk"}))
    first = walk(world)
    built = passes.built
    assert same(first, walk(world)) and passes.built == built
    assert world.shared.rings.made == 1


def test_sessions_that_live_together_have_graphs_of_their_own() -> None:
    alone = [walk(tiny.world(), 5), walk(tiny.world(), 5, sink=1)]
    world, passes = graphed(tiny.world())
    one = world.start(tiny.picture(), tiny.PROMPT, 3)
    two = world.start(tiny.picture(), tiny.PROMPT, 3, sink=1)
    mixed: tuple[list[Any], list[Any]] = ([], [])
    for i in range(5):
        for session, frames in zip((one, two), mixed, strict=True):
            prompt = "a frozen lake at night" if i == 4 else None
            frames.append(session.step(WALK[i % 3], prompt=prompt, blend_chunks=2).frames)
    assert same(alone[0], mixed[0]) and same(alone[1], mixed[1])
    assert passes.built == 1 + 2 * 6


def test_a_new_prompt_is_copied_and_recorded_only_for_another_shape() -> None:
    world, passes = graphed(tiny.world(text=tiny.HashText(160)))
    with world.start(tiny.picture(), tiny.PROMPT) as session:
        for _ in range(FULL):
            session.step()
        built, written = passes.built, passes.places.written
        session.step()
        usual = passes.places.written - written
        session.step(prompt="a frozen lake at night")  # as many rows, rounded up
        assert passes.built == built
        text = 2 * 3  # keys, values and what the last row counts for, of two blocks
        assert passes.places.written - written == 2 * usual + text
        session.step(prompt=" ".join(f"word{i}" for i in range(40)))
        assert passes.built == built + 2
        session.step()
        assert passes.built == built + 2


def test_places_are_written_when_something_changed_and_only_then() -> None:
    places = Places()
    a, b = torch.ones(3), torch.zeros(2)

    def hold() -> list[torch.Tensor]:
        return places.hold("x", [a, b], lambda tensor: False)[0]

    first = hold()
    assert places.written == 2 and len(places) == 2 and places.nbytes == 20
    assert [t.data_ptr() for t in hold()] == [t.data_ptr() for t in first]
    assert places.written == 2
    a.add_(1)
    assert torch.equal(hold()[0], torch.full((3,), 2.0)) and places.written == 3
    a = torch.full((3,), 5.0)
    assert hold()[0] is first[0] and torch.equal(first[0], a) and places.written == 4
    del a
    gc.collect()
    a = torch.full((3,), 5.0)  # perhaps where the old one was
    hold()
    assert places.written == 5


def test_a_closed_session_of_other_sizes_leaves_no_graph() -> None:
    world, passes = graphed(tiny.world())
    walk(world, 4)
    assert len(passes) == 7
    for made, window in enumerate((8, 7, 7, 8), start=2):
        walk(world, 4, window=window)
        assert len(passes) == 7
        assert world.shared.rings.made == (made if made < 4 else made - 1)
    walk(world, 4, window=8, chunk=2)  # the same ring, other shapes
    assert world.shared.rings.made == 4


def test_a_ring_that_dies_unclosed_takes_its_graphs_along() -> None:
    """Real graphs hold addresses, not rings; another ring may come to have the same id."""

    class Addresses:
        def record(self, run: Callable[[], Any]) -> Recorded:
            return Recorded(lambda: None, run())

    world, _ = graphed(tiny.world())
    eager = world.shared.passes.eager
    passes = GraphedPasses(eager, Addresses())
    world.shared = world.shared._replace(passes=passes)
    session = world.start(tiny.picture(), tiny.PROMPT)
    session.step()
    assert len(passes) == 3
    del session
    gc.collect()
    assert len(passes) == 1  # the camera's


def test_graphs_and_places_are_bounded() -> None:
    world, passes = graphed(tiny.world(), capacity=3)
    assert same(walk(tiny.world()), walk(world))
    assert len(passes) == 3
    nbytes = passes.places.nbytes
    walk(world)
    assert passes.places.nbytes == nbytes and len(passes) == 3


def test_a_graph_that_computes_something_else_is_found_at_once() -> None:
    class Wrong(FakeGraphs):
        def record(self, run: Callable[[], Any]) -> Recorded:
            recorded = super().record(run)

            def replay() -> None:
                for place in tensors_of(recorded.output):
                    place.add_(1)

            return Recorded(replay, recorded.output)

    world, _ = graphed(tiny.world())
    passes = GraphedPasses(world.shared.passes.eager, Wrong())
    world.shared = world.shared._replace(passes=passes)
    with (
        world.start(tiny.picture(), tiny.PROMPT) as session,
        pytest.raises(AssertionError, match="went wrong"),
    ):
        session.step()


def test_recache_runs_without_graphs() -> None:
    options = EngineOptions(recache=True)
    world, passes = graphed(tiny.world(options=options))
    assert same(walk(tiny.world(options=options)), walk(world))
    assert passes.built == 7


def test_levers_that_change_the_window_have_graphs_of_their_own() -> None:
    options = EngineOptions(lossy=("still_window=5",))
    world, passes = graphed(tiny.world(options=options))
    assert same(walk(tiny.world(options=options)), walk(world))
    assert passes.built == 1 + 2 * 3  # 3 frames, 5 of 6 while still, and 7


def test_where_graphs_cannot_be() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        tiny.world(options=EngineOptions(graphs="on"))
    tiny.world(options=EngineOptions(graphs="on"), without={"graphs"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_bits_of_plain_passes() -> None:
    films = []
    for mode in ("off", "on"):
        world = tiny.world()
        for module in (world.components.dit, world.components.vae):
            assert isinstance(module, torch.nn.Module)
            module.to("cuda")
        options = EngineOptions(graphs=mode)  # type: ignore[arg-type]
        films.append(walk(World(world.components, options=options)))
    assert same(*films)
