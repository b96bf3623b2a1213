"""History by replay: the reference of the live ring, and what a new prompt makes of the window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ControlError
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.kv_cache import FrameRing, KVRing
from worldline.runtime.replay import History, recache, replay
from worldline.runtime.session import Session
from worldline.runtime.state import SessionState
from worldline.runtime.step_cache import StepCache

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
OTHER = "a frozen lake at night"


def walk(world: World, chunks: int, *, prompt_at: int | None = None) -> Session:
    """A session that keeps every latent, after `chunks` chunks."""
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    session.state.past = History(everything=True)
    for i in range(chunks):
        prompt = OTHER if i == prompt_at else None
        session.step(WALK[i % 3], prompt=prompt, blend_chunks=2)
    return session


def empty(state: SessionState) -> SessionState:
    """The same session before its first chunk, its own latents apart."""
    ring = KVRing(state.kv.params, dtype=torch.float32, device="cpu")
    return replace(state, kv=ring, anchor=0, caches=StepCache(), past=None)


def same(ours: FrameRing, theirs: FrameRing, end: int) -> bool:
    return all(
        torch.equal(a, b)
        for layer in range(ours.params.layers)
        for a, b in zip(
            ours.in_time_order(layer, end), theirs.in_time_order(layer, end), strict=True
        )
    )


@pytest.mark.parametrize("chunks", [2, 7], ids=["filling", "wrapped"])
def test_replay_leaves_the_bits_of_the_live_ring(chunks: int) -> None:
    session = walk(tiny.world(), chunks, prompt_at=1)
    state, again = session.state, empty(session.state)
    assert state.past is not None and len(state.past) == chunks
    with torch.no_grad():
        replay(session.engine, again, state.past)
    assert same(again.kv, state.kv, state.next_frame)


def test_replay_follows_a_moving_origin_of_time() -> None:
    session = walk(tiny.world(reanchor_at=8), 7)
    state, again = session.state, empty(session.state)
    assert state.anchor > 0 and state.past is not None
    with torch.no_grad():
        replay(session.engine, again, state.past)
    assert again.anchor == state.anchor
    assert same(again.kv, state.kv, state.next_frame)


def test_the_window_alone_rebuilds_it_while_nothing_has_left() -> None:
    """And later at least its first block, which does not depend on what left."""
    world = tiny.world(options=EngineOptions(recache=True))
    for chunks, exact in ((2, True), (6, False)):
        session = world.start(tiny.picture(), tiny.PROMPT, 3)
        for i in range(chunks):
            session.step(WALK[i % 3])
        state, end = session.state, session.state.next_frame
        live = [state.kv.in_time_order(layer, end) for layer in range(2)]
        text = world.shared.texts.get(tiny.PROMPT)
        prompt = replace(state.prompt, current=text.states.clone())  # equal, and yet another
        with torch.no_grad():
            recache(session.engine, state, prompt)
        made = [state.kv.in_time_order(layer, end) for layer in range(2)]
        for (k, v), (k2, v2) in zip(live[: 2 if exact else 1], made, strict=False):
            torch.testing.assert_close(k2, k, atol=1e-5, rtol=0)
            torch.testing.assert_close(v2, v, atol=1e-5, rtol=0)
        sink = state.settings.sink * state.geometry.tokens_per_frame
        assert all(
            torch.equal(a[0][:, :sink], b[0][:, :sink]) for a, b in zip(live, made, strict=True)
        )


def test_only_chunks_of_the_window_are_kept() -> None:
    world = tiny.world(options=EngineOptions(recache=True))
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    for i in range(9):
        session.step(WALK[i % 3])
    assert session.state.past is not None
    held = session.state.kv.present_frames(session.state.next_frame)
    kept = [past.frames for past in session.state.past]
    assert kept == [range(3), range(21, 24), range(24, 27)] or set(held) <= set().union(*kept)
    assert all(set(frames) & set(held) for frames in kept)
    assert tiny.world().start(tiny.picture(), tiny.PROMPT).state.past is None


def films(recached: bool) -> list[np.ndarray]:
    world = tiny.world(options=EngineOptions(recache=recached))
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    return [
        session.step(WALK[i % 3], prompt=OTHER if i == 4 else None, blend_chunks=0).frames
        for i in range(6)
    ]


def test_recache_shows_at_the_new_prompt_and_nowhere_before() -> None:
    plain, recached = films(False), films(True)
    equal = [np.array_equal(a, b) for a, b in zip(plain, recached, strict=True)]
    assert equal == [True] * 4 + [False] * 2


def test_the_rebuilt_history_is_what_the_new_prompt_makes_of_the_latents() -> None:
    """All frames in the window: like a replay in which every chunk always had the new text."""
    world = tiny.world(options=EngineOptions(recache=True), window=18, sink=3)
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    session.step(WALK[0])
    session.step(WALK[1])
    session.step(WALK[2])
    state = session.state
    assert state.past is not None
    before = state.kv.in_time_order(1, 3)
    again, text = empty(state), world.shared.texts.get(OTHER)
    pasts = [past._replace(prompt=replace(past.prompt, current=text.states)) for past in state.past]
    with torch.no_grad():
        again.kv.put(range(3), state.kv.take(range(3)))  # the sink stays as it was
        replay(session.engine, again, pasts[1:])
        recache(session.engine, state, replace(state.prompt, current=text.states))
    for layer in range(2):
        (k, v), (k2, v2) = (r.in_time_order(layer, 9) for r in (again.kv, state.kv))
        torch.testing.assert_close(k, k2, atol=1e-5, rtol=0)
        torch.testing.assert_close(v, v2, atol=1e-5, rtol=0)
    assert torch.equal(before[0], state.kv.in_time_order(1, 3)[0])
    assert torch.equal(before[1], state.kv.in_time_order(1, 3)[1])
    assert all(past.prompt.current is text.states for past in list(state.past)[1:])


def test_a_blend_is_rebuilt_once_when_it_arrives() -> None:
    world = tiny.world(options=EngineOptions(recache=True))
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    runs = []
    for i in range(8):
        before = session.state.caches.computed["camera"]
        session.step(WALK[i % 3], prompt=OTHER if i == 3 else None, blend_chunks=3)
        runs.append(session.state.caches.computed["camera"] - before)
    assert [i for i, n in enumerate(runs) if n > 1] == [5]


def test_a_step_that_failed_after_a_new_prompt_can_be_repeated() -> None:
    world = tiny.world(options=EngineOptions(recache=True))
    frames = []
    for fails in (False, True):
        session = world.start(tiny.picture(), tiny.PROMPT, 3)
        for i in range(4):
            session.step(WALK[i % 3])
        if fails:
            with pytest.raises(ControlError):
                session.step([("fly",)] * 3, prompt=OTHER)
        frames.append(session.step(WALK[0], prompt=OTHER).frames)
    assert np.array_equal(*frames)
