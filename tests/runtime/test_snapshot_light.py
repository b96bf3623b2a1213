"""How far back a decoder reaches, and texts in force that come back from words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import worldline
from tests import tiny
from worldline.models.preset import resolve_runtime
from worldline.ops.vae import StreamState
from worldline.runtime import conditions
from worldline.runtime.engine import World
from worldline.runtime.snapshot_light import Said, reach_of

LEVEL = 2 / 255  # of a picture in [-1, 1]


def pocket() -> World:
    return worldline.load("pocket", threads=1)


@pytest.mark.parametrize(("make", "bound"), [(pocket, 0.0), (tiny.world, 0.05)])
def test_nothing_older_than_the_history_reaches_a_picture(
    make: Callable[[], World], bound: float
) -> None:
    """In levels; with one latent frame less there is something of it in the pocket world."""
    world = make()
    vae, history = world.shared.vae, reach_of(world.shared, resolve_runtime(world.preset)).history
    grid = (12, 20) if bound == 0 else (4, 6)
    frames = torch.randn(1, 16, 32, *grid, generator=torch.Generator().manual_seed(1)).split(1, 2)

    def last(first: int) -> torch.Tensor:
        state: StreamState | None = None
        for frame in frames[first:-1]:
            _, state = vae.decode_stream(frame, state)
        return vae.decode_stream(frames[-1], state)[0]

    with torch.no_grad():
        whole = last(0)
        off = (last(31 - history) - whole).abs().max() / LEVEL
        assert off <= bound
        if bound == 0:
            assert not torch.equal(last(31 - history + 1), whole)


def test_texts_in_force_are_made_again_from_their_words() -> None:
    """Blend after blend, one inside the other, at every step; equal words are the same object."""
    world = tiny.world()
    engine = world.shared
    now = first = conditions.plain_prompt("a red hall", engine.text("a red hall"))
    seen = []
    for words, chunks, steps in (("snow", 3, 2), ("a wide sea", 2, 3), ("night", 0, 1)):
        now = conditions.switch_prompt(now, engine.text(words), chunks, words=words)
        seen.append(now)
        for _ in range(steps):
            now = conditions.advance_prompt(now)
            seen.append(now)
    said = Said(engine, first)
    assert said.states(first.said) is first
    for prompt in seen:
        again = said.states(prompt.said)
        assert again is said.states(prompt.said)
        assert torch.equal(again.current, prompt.current)
        assert (again.rows, again.said) == (prompt.rows, prompt.said)
        ahead, ahead_too = prompt, again
        for _ in range(3):  # and goes on as it would have
            ahead, ahead_too = map(conditions.advance_prompt, (ahead, ahead_too))
            assert torch.equal(ahead.current, ahead_too.current)


def test_a_camera_and_controls_come_back_as_they_were() -> None:
    """By the next chunks of a walk that has turned and looked up, of one that is rebuilt."""
    with tiny.world().start(tiny.picture(), tiny.PROMPT, 3, steps=1) as session:
        for keys in (("w", "l", "i"), ("a", "k"), ("s", "d", "j")):
            session.step([keys] * 3)
        light, pose = session.snapshot(light=True), session.state.camera
        expected = session.step([("w",)] * 3)
    with tiny.world().start(tiny.picture(), tiny.PROMPT, 3, steps=1) as other:
        other.restore(light)
        assert np.array_equal(other.state.camera.c2w, pose.c2w)
        assert other.state.camera[1:] == pose[1:]
        found = other.step([("w",)] * 3)
    assert found.poses == expected.poses
    assert np.array_equal(found.frames, expected.frames)
