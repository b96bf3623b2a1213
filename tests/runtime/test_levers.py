"""Lossy levers: off by default, refused where they cannot work, and doing what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.ops.rope import apply_rope
from worldline.runtime import levers
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.inputs import turns
from worldline.runtime.passes import EagerPasses
from worldline.runtime.savings import LEVERS, check_levers
from worldline.runtime.session import Session

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]


def world(*lossy: str, **changes: object) -> World:
    return tiny.world(options=EngineOptions(lossy=lossy), **changes)  # type: ignore[arg-type]


def walk(session: Session, chunks: int = 5) -> list[np.ndarray]:
    return [session.step(WALK[i % 3]).frames for i in range(chunks)]


def test_none_is_on_unless_asked_for() -> None:
    assert tiny.world().shared.levers == {}
    assert check_levers(["last_step_kv", "still_window=6"]) == {
        "last_step_kv": 0,
        "still_window": 6,
    }
    assert {levers.LAST_STEP_KV, levers.STILL_WINDOW, levers.SINK_DISTANCE} <= set(LEVERS)


@pytest.mark.parametrize(
    "text",
    ["luck", "still_window", "still_window=", "still_window=-3", "last_step_kv=2", "steps=3"],
)
def test_unusable_ones_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lever"):
        world(text)


@pytest.mark.parametrize("text", ["still_window=4", "sink_distance=9"])
def test_numbers_that_do_not_fit_the_window_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        world(text).start(tiny.picture(), tiny.PROMPT)  # window 7, sink 2, chunk 3


def test_last_step_kv_leaves_the_context_pass_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(EagerPasses, "commit", lambda *a, **k: calls.append("commit"))
    frames = walk(world("last_step_kv").start(tiny.picture(), tiny.PROMPT), 2)
    assert calls == [] and frames[1].any()


def test_last_step_kv_shows_from_the_second_chunk_on() -> None:
    plain, cheap = (
        walk(w.start(tiny.picture(), tiny.PROMPT, 1)) for w in (world(), world("last_step_kv"))
    )
    assert [np.array_equal(a, b) for a, b in zip(plain, cheap, strict=True)] == [True] + [False] * 4


def test_a_still_chunk_attends_to_sink_and_newest_frames() -> None:
    session = world("still_window=5").start(tiny.picture(), tiny.PROMPT)
    tokens, seen = session.state.geometry.tokens_per_frame, []
    for controls in (WALK[0], None, WALK[0], None, None, [("w",)] * 3):
        session.step(controls)
        seen.append(session.state.kv.visible_tokens // tokens)
    assert seen == [3, 5, 7, 5, 5, 7]


def test_the_frames_left_out_are_the_oldest_after_the_sink() -> None:
    session = world("still_window=5").start(tiny.picture(), tiny.PROMPT)
    walk(session, 4)
    engine, state = session.engine, session.state
    still = levers_motion(session, None)
    assert levers.visible_frames(engine, state, still) == [0, 1, 12, 13, 14]
    assert levers.visible_frames(engine, state, levers_motion(session, WALK[0])) is None


def levers_motion(session: Session, controls: Controls) -> levers.Moved:
    from worldline.runtime.conditions import fold_motion

    start = session.state.next_frame
    rig = session.engine.preset.rig
    return fold_motion(session.state.camera, controls, rig, range(start, start + 3))


def test_a_key_that_is_down_is_not_still() -> None:
    session = world().start(tiny.picture(), tiny.PROMPT)
    session.step()
    assert levers.stands_still(levers_motion(session, None))
    assert not levers.stands_still(levers_motion(session, [(), (), ("w",)]))
    assert not levers.stands_still(levers_motion(session, [("l",), (), ()]))


def test_the_sink_is_held_within_the_distance() -> None:
    cap = 20
    near, far = (
        w.start(tiny.picture(), tiny.PROMPT, 1) for w in (world(f"sink_distance={cap}"), world())
    )
    moved = []
    for i in range(20):
        near.step(WALK[i % 3])
        far.step(WALK[i % 3])
        moved.append(near.state.sink_shift)
        away = near.state.next_frame - near.state.sink_shift
        assert away <= cap
    assert moved[5] == 0 and 3 <= len(set(moved)) <= 8  # in steps, not with every chunk
    # Block 0's sink keys depend on nothing before them: they are those of the plain walk, turned.
    table = turns(near.engine.dit, [near.state.sink_shift], 1, 1)
    sink = 2 * near.state.geometry.tokens_per_frame
    theirs = far.state.kv.in_time_order(0, 60)[0][:, :sink]
    ours = near.state.kv.in_time_order(0, 60)[0][:, :sink]
    torch.testing.assert_close(ours, apply_rope(theirs, table), atol=1e-5, rtol=1e-5)


def test_a_sink_held_near_is_turned_with_everything_else() -> None:
    session = world("sink_distance=20", reanchor_at=12).start(tiny.picture(), tiny.PROMPT, 1)
    for i in range(20):
        session.step(WALK[i % 3])
    assert session.state.anchor > 40 and session.state.sink_shift > 30
