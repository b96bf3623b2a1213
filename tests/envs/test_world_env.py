"""Worlds as Gymnasium environments: the library's own checker, branches, rewinds, bad input."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests import tiny
from worldline.core.errors import ConfigError, ControlError, ImageError, PromptError
from worldline.envs import POCKET_ID, Step, WorldEnv, WorldVectorEnv, register
from worldline.runtime.engine import World

STEPS = int(os.environ.get("WORLDLINE_AGENT_STEPS", "40"))
pytestmark = pytest.mark.timeout(120 + STEPS)


@pytest.fixture(scope="module")
def world() -> World:
    """Small, with chunks of one latent frame as the pocket world has, and soon full."""
    return tiny.world(chunk=1)


@pytest.fixture
def env(world: World) -> Generator[WorldEnv]:
    with WorldEnv(world) as env:
        yield env


def walk(env: WorldEnv, actions: list[int], seed: int = 5) -> list[np.ndarray]:
    """What a walk from the start shows, its start first."""
    shown = [env.reset(seed=seed)[0]]
    return shown + [env.step(np.int64(action))[0] for action in actions]


def test_gymnasiums_checker_passes() -> None:
    register()
    register()
    made = gymnasium.make(POCKET_ID, render_mode="rgb_array")
    check_env(made.unwrapped)
    made.close()


def test_the_checker_passes_for_motions(world: World) -> None:
    env = WorldEnv(world, actions="motion", render_mode="rgb_array")
    env.spec = None
    check_env(env, skip_render_check=True, skip_close_check=True)
    first, _ = env.reset(seed=1)
    turned = env.step(np.array([0, 0, 1, 0], np.float32))
    assert turned[4]["yaw"] > 0
    assert np.array_equal(np.asarray(env.render()), turned[0]) and not np.array_equal(
        first, turned[0]
    )
    env.close()
    env.close()


def test_a_walk_depends_on_seed_and_actions_alone(env: WorldEnv) -> None:
    first, again = walk(env, [1, 10, 5]), walk(env, [1, 10, 5])
    assert np.array_equal(first, again)
    assert not np.array_equal(first[-1], walk(env, [1, 10, 6])[-1])
    assert not np.array_equal(first[-1], walk(env, [1, 10, 5], seed=6)[-1])


def test_hooks_say_what_a_step_is_worth_and_when_it_ends(world: World) -> None:
    steps: list[Step] = []

    def worth(step: Step) -> float:
        steps.append(step)
        return step.pose.yaw

    env = WorldEnv(world, reward=worth, ended=lambda step: step.pose.yaw > 8, max_steps=3)
    env.reset(seed=1)
    _, reward, terminated, truncated, info = env.step(6)
    assert (reward, terminated, truncated) == (pytest.approx(6), False, False)
    assert info["frames"].shape == (4, tiny.HEIGHT, tiny.WIDTH, 3)
    env.say("a quiet lake")
    assert env.step(6)[1:4] == (pytest.approx(12), True, False)
    assert env.step(0)[1:4] == (pytest.approx(12), True, True)
    assert [step.number for step in steps] == [1, 2, 3]
    assert steps[1].prompt == steps[2].prompt == "a quiet lake" != steps[0].prompt
    env.close()


def test_random_steps_with_random_rewinds_equal_replays_from_the_start(
    world: World, env: WorldEnv
) -> None:
    chance = random.Random(3)
    frame, _ = env.reset(seed=11)
    shown, actions = [frame], []
    for _ in range(STEPS):
        actions.append(chance.randrange(11))
        shown.append(env.step(actions[-1])[0])
        if chance.random() < 0.15:
            back = chance.randint(0, min(len(actions), 6))
            frame, info = env.rewind(back)
            assert info["rebuilt"] in ("", "exact")
            del actions[len(actions) - back :], shown[len(shown) - back :]
            assert np.array_equal(frame, shown[-1])
    other = WorldEnv(world)
    again = walk(other, actions, seed=11)
    other.close()
    assert len(actions) > 5
    assert [np.array_equal(a, b) for a, b in zip(again, shown, strict=True)] == [True] * len(shown)


def test_branches_go_their_own_ways_and_each_equals_its_walk(world: World, env: WorldEnv) -> None:
    walk(env, [1, 1, 5])
    left, right = env.branch(2)
    ways = {9: left, 10: right}
    ends = {key: [way.step(key)[0] for _ in range(3)] for key, way in ways.items()}
    stayed = env.step(0)[0]
    for key in ways:
        assert np.array_equal(walk(env, [1, 1, 5, key, key, key])[-3:], ends[key])
    assert np.array_equal(walk(env, [1, 1, 5, 0])[-1], stayed)
    assert np.array_equal(left.rewind(3)[0], right.rewind(3)[0])
    for way in ways.values():
        way.close()


def test_a_kept_moment_is_stood_in_again(env: WorldEnv) -> None:
    walk(env, [1, 5])
    kept = env.keep()
    gone = [env.step(action)[0] for action in (2, 3, 4)]
    frame, info = env.restore(kept)
    assert info["step"] == 2 and np.array_equal(frame, kept.shown[-1].frame)
    assert np.array_equal([env.step(action)[0] for action in (2, 3, 4)], gone)
    assert env.rewind(5)[1]["step"] == 0


def test_walks_side_by_side_become_branches_of_the_best(world: World, env: WorldEnv) -> None:
    walk(env, [1])
    side = WorldVectorEnv.branches(env, 3)
    frames, rewards, *_ = side.step(np.array([5, 0, 6]))
    assert frames.shape == (3, tiny.HEIGHT, tiny.WIDTH, 3) and rewards.tolist() == [0, 0, 0]
    assert not np.array_equal(frames[0], frames[2])
    assert np.array_equal(side.spread(2), [frames[2]] * 3)
    after = side.step(np.array([0, 1, 0]))[0]
    assert np.array_equal(after[0], after[2]) and not np.array_equal(after[0], after[1])
    assert np.array_equal(side.rewind(1), [frames[2]] * 3)
    assert np.array_equal(side.step(np.array([1, 1, 1]))[0], [after[1]] * 3)
    with pytest.raises(ConfigError):
        side.spread(3)
    side.close()


def test_ended_walks_side_by_side_begin_anew(world: World) -> None:
    side = WorldVectorEnv([WorldEnv(world, max_steps=n) for n in (1, 5)])
    first, _ = side.reset(seed=2)
    _, _, _, truncated, _ = side.step(np.array([1, 1]))
    assert truncated.tolist() == [True, False]
    *_, infos = side.step(np.array([1, 1]))
    assert infos["step"].tolist() == [0, 2]
    seen = side.seen()
    with pytest.raises(ConfigError, match="0 to 0 steps"):
        side.rewind(1)
    assert np.array_equal(side.seen(), seen), "the other one stayed too"
    assert first.shape == side.seen().shape
    side.close()


def test_wrong_input_is_refused_and_the_walk_goes_on(world: World, env: WorldEnv) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    before, _ = env.reset(seed=1)
    for action in (11, -1, 0.5, "w", None):
        with pytest.raises(ControlError):
            env.step(action)
    for steps in (1, -1):
        with pytest.raises(ConfigError):
            env.rewind(steps)
    with pytest.raises(ConfigError):
        env.reset(options={"picture": 1})
    with pytest.raises(PromptError):
        env.reset(options={"prompt": " "})
    with pytest.raises(ImageError):
        env.reset(options={"image": np.zeros((3, 3), np.uint8)})
    assert np.array_equal(env.rewind(0)[0], before)
    env.say("  ")
    with pytest.raises(PromptError):
        env.step(0)
    wrongs: list[dict[str, Any]] = [
        {"actions": "mouse"},
        {"render_mode": "human"},
        {"history": 0},
        {"max_steps": 0},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            WorldEnv(world, **wrong)
    with pytest.raises(ConfigError):
        WorldVectorEnv([])
    env.become(env)
    with WorldEnv(world, size=(96, 160)) as other, pytest.raises(ConfigError, match="another kind"):
        env.become(other)
    assert np.array_equal(env.seen, before)


def test_the_search_in_the_docs_finds_its_way_back(repo_root: Path) -> None:
    text = (repo_root / "docs" / "agents.md").read_text(encoding="utf-8")
    (search,) = (
        block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def " in block
    )
    names: dict[str, Any] = {}
    exec(search, names)
    assert names["way"] == names["HIDDEN"]
