"""Parked sessions: off the device, back bit for bit; and back to the start picture."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.models.registry import get_preset
from worldline.runtime import parking
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.paged_ring import needed_frames
from worldline.runtime.pages import Page, Written
from worldline.runtime.ring_pool import RingPool
from worldline.runtime.session import Session
from worldline.runtime.tree import tensors_of
from worldline.runtime.weigh import weigh

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
CHUNKS = 6
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "int8": {"options": EngineOptions(kv="8bit")},
    "growing": {"window": -1, "sink": 0},
    "recached": {"options": EngineOptions(recache=True)},
    "reanchored": {"reanchor_at": 6},
}


def start(world: World, seed: int = 3) -> Session:
    return world.start(tiny.picture(), tiny.PROMPT, seed, steps=2)


def walking(session: Session, chunks: range = range(CHUNKS)) -> Iterator[NDArray[np.uint8]]:
    """Chunk after chunk, with a blend of prompts on the way."""
    for i in chunks:
        prompt = "a frozen lake at night" if i == 2 else None
        frames = session.step(WALK[i % 3], prompt=prompt, blend_chunks=2).frames
        session.prepare()
        yield frames


def held(session: Session) -> list[torch.Tensor]:
    """Every tensor of a session."""
    state = session.state
    values = (state.image, state.prompt, state.origin, state.decoder, list(state.past or ()))
    return [*state.kv.buffers(), *tensors_of(values)]


def pages(session: Session) -> list[Page]:
    """The frames that its next chunk may attend to."""
    state = session.state
    frames = needed_frames(state.kv, state.next_frame, state.settings.chunk)
    return [Page(f, Written(), tuple(r.clone() for r in state.kv.page(f).rows)) for f in frames]


@pytest.mark.parametrize("name", WORLDS)
def test_parking_between_any_chunks_changes_no_bit(name: str) -> None:
    with start(tiny.world(**WORLDS[name])) as session:
        plain = list(walking(session))
    with start(tiny.world(**WORLDS[name])) as session:
        for i, (expected, frames) in enumerate(zip(plain, walking(session), strict=True)):
            assert np.array_equal(frames, expected), f"chunk {i}"
            session.park()
            if i % 2:
                session.unpark()
            assert session.parked == (i % 2 == 0)


def test_a_parked_session_holds_nothing_of_the_device() -> None:
    """Its ring is back in the pool, and no frame shares memory with what it had there."""
    world = tiny.world()
    session = start(world)
    for _ in walking(session, range(3)):
        pass
    ring = weakref.ref(session.state.kv)
    places = {t.data_ptr() for t in session.state.kv.buffers()}
    before = [page.rows for page in pages(session)]
    values = [t.clone() for t in held(session)[len(session.state.kv.buffers()) :]]
    assert before
    counts = world.counts()
    assert (counts.rings, counts.parked_bytes) == (1, 0) and counts.ring_bytes > 0
    session.park()
    gc.collect()
    assert ring() is None
    assert places.isdisjoint(t.data_ptr() for t in held(session))
    assert len(session.state.caches) == 0
    now = held(session)
    before_too = [*(row for rows in before for row in rows), *values]
    assert all(torch.equal(old, new) for old, new in zip(before_too, now, strict=True))
    counts = world.counts()
    assert (counts.rings, counts.ring_bytes) == (0, 0)
    assert counts.parked_bytes == weigh(now).nbytes
    session.park()  # once more does nothing
    assert world.counts() == counts
    session.close()
    assert world.counts().parked_bytes == len(world.shared.ledger) == 0


def test_who_comes_back_may_find_another_ring() -> None:
    """Where rings outlive sessions: what `a` had is now `b`'s, and both go on as if alone."""
    alone = {}
    for seed in (1, 2):
        with start(tiny.world(), seed) as session:
            alone[seed] = list(walking(session))
    world = tiny.world()
    world.shared = world.shared._replace(rings=RingPool(idle=1))
    sessions = {seed: start(world, seed) for seed in (1, 2)}
    walks = {seed: walking(session) for seed, session in sessions.items()}
    rings: dict[int, set[int]] = {1: set(), 2: set()}
    for i in range(CHUNKS):
        for seed, other in ((1, 2), (2, 1)):
            sessions[other].park()
            assert np.array_equal(next(walks[seed]), alone[seed][i])
            rings[seed].add(id(sessions[seed].state.kv))
    assert rings[1] & rings[2], "they took turns with the same ring"
    assert world.shared.rings.made <= 2


def test_sessions_that_interleave_walk_as_if_alone() -> None:
    """Three of them, one chunk each in a crooked order, some parked in between, some reset."""
    order = np.random.default_rng(5).permutation(np.repeat([0, 1, 2], CHUNKS))
    alone = []
    for seed in range(3):
        with start(tiny.world(), seed) as session:
            alone.append(list(walking(session)))
    world = tiny.world()
    sessions = [start(world, seed) for seed in range(3)]
    list(walking(sessions[2], range(2)))
    sessions[2].reset()
    walks, seen = [walking(session) for session in sessions], [0, 0, 0]
    for turn, who in enumerate(order):
        if turn % 2:
            sessions[(who + 1) % 3].park()
        assert np.array_equal(next(walks[who]), alone[who][seen[who]]), (turn, who)
        seen[who] += 1
    for session in sessions:
        session.close()
    counts = world.counts()
    assert (counts.rings, counts.parked_bytes, len(world.shared.ledger)) == (0, 0, 0)


def test_a_session_that_finds_no_memory_stays_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    with start(tiny.world()) as session:
        plain = list(walking(session))
    session = start(tiny.world())
    walk = walking(session)
    assert np.array_equal(next(walk), plain[0])
    session.park()

    def full(*args: object) -> object:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(parking, "take_ring", full)
        with pytest.raises(MemoryError):
            session.unpark()
    assert session.parked
    assert np.array_equal(next(walk), plain[1])
    assert not session.parked


@pytest.mark.parametrize("parked", [False, True])
def test_a_reset_session_is_a_new_one(parked: bool) -> None:
    """The start picture, the first prompt, chunk 0; the seed it had or another."""
    with start(tiny.world(), 3) as session:
        third = list(walking(session))
    with start(tiny.world(), 9) as session:
        ninth = list(walking(session))
    world = tiny.world(options=EngineOptions(recache=True))
    session = world.start(tiny.picture(), tiny.PROMPT, 3, steps=2, keep_latents=True)
    session.step(WALK[0], prompt="snow")
    session.step([("w", "l")] * 3)
    recalled = world.shared.first_chunks.recalled
    for seed, expected in ((None, third), (9, ninth), (None, ninth)):
        if parked:
            session.park()
        session.reset(seed)
        assert session.parked == parked and session.next_chunk == 0
        chunks = [next(walk) for walk in [walking(session)] for _ in range(2)]
        assert all(np.array_equal(a, b) for a, b in zip(chunks, expected, strict=False))
        assert session.state.camera.pose.c2w != tiny_start_pose()
    assert world.shared.first_chunks.recalled > recalled  # the same start opens at once
    assert len(list(session.recording())) == 2


def tiny_start_pose() -> tuple[float, ...]:
    return (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def test_pocket_keeps_its_bits_too() -> None:
    """Another autoencoder, with another history."""
    import worldline

    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    films = []
    for parks in (False, True):
        world = worldline.load("pocket", random_weights=True, threads=1)
        with world.start(noise, "a red hall", 7, steps=1) as session:
            frames = []
            for keys in ("w", "wl", "", "j"):
                frames.append(session.step([tuple(keys)]).frames)
                if parks:
                    session.park()
        films.append(np.concatenate(frames))
    assert np.array_equal(*films)
    assert get_preset("pocket").chunk == 1
