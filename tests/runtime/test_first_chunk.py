"""First chunks of equal starts: the same bits ever after, no shared memory, bounded bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from worldline.bench.census import weigh
from worldline.core.camera import Intrinsics
from worldline.core.config import EngineOptions
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.first_chunk import FirstChunks, Generated, Kept
from worldline.runtime.session import Session
from worldline.runtime.start_options import StartOptions
from worldline.runtime.tree import tensors_of

FIRST: Controls = [(), ("w",), ("w", "l")]
WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
AFTER = 6  # chunks after the first
OTHER = {"window": 8, "sink": 1, "chunk": 2, "shift": 3.0, "steps": 2, "width": 64, "height": 64}


def opened(world: World, **changes: object) -> Session:
    """An ordinary start; with `changes` to its options."""
    options = StartOptions(**changes)  # type: ignore[arg-type]
    return world.open(tiny.picture(), tiny.PROMPT, 7, options=options)


def warmed(world: World) -> World:
    """A world that keeps the ordinary first chunk."""
    with opened(world) as session:
        session.step(FIRST)
        session.prepare()
    assert len(world.shared.first_chunks) == 1 and world.shared.first_chunks.recalled == 0
    return world


def film(session: Session) -> list[NDArray[np.uint8]]:
    with session:
        frames = [session.step(FIRST).frames]
        for i in range(AFTER):
            session.prepare()
            prompt = "a frozen lake at night" if i == 3 else None
            frames.append(session.step(WALK[i % len(WALK)], prompt=prompt).frames)
        return frames


def test_a_recalled_start_goes_on_bit_for_bit() -> None:
    plain = film(opened(tiny.world(without={"first_chunk"})))
    world = tiny.world()
    films = [film(opened(world)) for _ in range(3)]
    assert world.shared.first_chunks.recalled == 2
    for again in films:
        assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))


def test_the_state_is_equal_and_shares_no_memory() -> None:
    world = warmed(tiny.world())
    with opened(tiny.world(without={"first_chunk"})) as plain, opened(world) as recalled:
        for session in (plain, recalled):
            session.step(FIRST)
            session.prepare()
        assert world.shared.first_chunks.recalled == 1
        ours, theirs = recalled.state, plain.state
        for layer in range(ours.kv.params.layers):
            keys, values = ours.kv.in_time_order(layer, 3)
            assert torch.equal(keys, theirs.kv.in_time_order(layer, 3)[0])
            assert torch.equal(values, theirs.kv.in_time_order(layer, 3)[1])
        states = [(s.decoder, s.image.latents, s.image.encoder) for s in (ours, theirs)]
        found = [list(tensors_of(state)) for state in states]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert np.array_equal(ours.camera.c2w, theirs.camera.c2w)
        assert (ours.camera.pitch_deg, ours.next_chunk) == (theirs.camera.pitch_deg, 1)
        # Whatever a session does to its own tensors, the next one starts from the same.
        for tensor in (*found[0], *ours.kv.buffers()):
            tensor.fill_(7.0)
    with opened(world) as again:
        frames = again.step(FIRST).frames
        assert all(not (t == 7).all() for t in tensors_of(again.state.decoder))
        assert np.array_equal(frames, opened(tiny.world()).step(FIRST).frames)


def test_an_equal_start_is_generated_once() -> None:
    world = warmed(tiny.world())
    with opened(world) as session:
        session.step(FIRST)
        assert session.state.caches.computed["camera"] == 0


@pytest.mark.parametrize("name", OTHER)
def test_a_change_of_any_setting_misses(name: str) -> None:
    world = warmed(tiny.world())
    with opened(world, **{name: OTHER[name]}) as session:
        session.step([()] * session.chunk)
    assert world.shared.first_chunks.recalled == 0


@pytest.mark.parametrize(
    "start",
    [
        lambda w: w.start(tiny.picture(1), tiny.PROMPT, 7).step(FIRST),
        lambda w: w.start(tiny.picture(), tiny.PROMPT + " now", 7).step(FIRST),
        lambda w: w.start(tiny.picture(), tiny.PROMPT, 8).step(FIRST),
        lambda w: w.start(tiny.picture(), tiny.PROMPT, 7).step([(), ("w",), ("w",)]),
        lambda w: w.start(tiny.picture(), tiny.PROMPT, 7).step(FIRST, prompt="another place"),
        lambda w: w.start(
            tiny.picture(), tiny.PROMPT, 7, intrinsics=Intrinsics(400.0, 410.0, 420.0, 200.0)
        ).step(FIRST),
        lambda w: opened(w, stretch=True).step(FIRST),
    ],
    ids=["picture", "prompt", "seed", "controls", "new prompt", "lens", "fit"],
)
def test_a_change_of_any_input_misses(start: Callable[[World], object]) -> None:
    world = warmed(tiny.world())
    start(world)
    assert world.shared.first_chunks.recalled == 0


@pytest.mark.parametrize(
    "change", [{"weights": "other"}, {"mode": "fast"}, {"model": "other"}, {"dtype": "bfloat16"}]
)
def test_another_model_mode_or_weights_misses(change: dict[str, str]) -> None:
    """Even if what is kept were shared between worlds."""
    kept = warmed(tiny.world()).shared.first_chunks
    world = tiny.world()
    world.shared = world.shared._replace(first_chunks=kept)
    world.info = msgspec.structs.replace(world.info, **change)
    opened(world).step(FIRST)
    assert kept.recalled == 0


def test_walk_keys_count_only_where_they_reach_the_network() -> None:
    """On latent frame 0 no key moves the camera; only a network with action control sees it."""
    for control_dim, recalled in ((6, 1), (7, 0)):
        world = tiny.world(dit=tiny.dit_params(control_dim=control_dim))
        for pressed in ((), ("w",)):
            with opened(world) as session:
                session.step([pressed, (), ()])
                session.prepare()
        assert world.shared.first_chunks.recalled == recalled


def test_other_noise_is_never_kept() -> None:
    world = tiny.world()
    with opened(world, noise=lambda chunk, index, shape: torch.zeros(shape)) as session:
        session.step(FIRST)
        session.prepare()
    assert len(world.shared.first_chunks) == 0


def kept(nbytes: int) -> Kept:
    generated = Generated(torch.zeros(nbytes, dtype=torch.uint8), torch.empty(0))
    return Kept(generated, [], torch.empty(0), None)


def test_bytes_are_bounded_and_the_oldest_leaves() -> None:
    chunks = FirstChunks(100)
    for name in (b"a", b"b"):
        chunks.put(name, kept(40))
    assert chunks.get(b"a") is not None
    chunks.put(b"c", kept(40))
    assert (b"a" in chunks, b"b" in chunks, b"c" in chunks) == (True, False, True)
    assert chunks.nbytes == 80 and len(chunks) == 2
    assert not chunks.has_room(101) and chunks.has_room(100)


def test_what_is_kept_is_weighed() -> None:
    world = warmed(tiny.world())
    chunks = world.shared.first_chunks
    everything = list(tensors_of(list(chunks._kept.values())))
    assert chunks.nbytes == sum(t.nbytes for t in everything) == weigh(everything).nbytes > 1000


def test_too_small_a_limit_keeps_nothing() -> None:
    for megabytes in (0, 1):
        world = tiny.world(options=EngineOptions(first_chunks_mb=megabytes), window=7)
        world.shared.first_chunks._limit = min(world.shared.first_chunks._limit, 1000)
        with opened(world) as session:
            session.step(FIRST)
            session.prepare()
            assert session.state.opening is None
        assert len(world.shared.first_chunks) == 0 and world.shared.first_chunks.nbytes == 0
