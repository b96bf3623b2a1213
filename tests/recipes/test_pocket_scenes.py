"""The pocket worlds: renderer, walks with the product's rig, captions, measures."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import MAX_PRIMS, PERIOD, arrays, caption, clearance, scenes
from recipes.pocket.streaming import SHIPPED
from recipes.pocket.walks import (
    KEEP_AWAY,
    METRES,
    RIG,
    frame_poses,
    make_walk,
    relative_poses,
    view_state,
    walk_seed,
)
from worldline.core.camera import advance
from worldline.models.pocket.params import POCKET_TEXT
from worldline.models.registry import get_preset
from worldline.sampling.schedules import official_schedule

SMALL_WORDS = {"a", "an", "with", "and", "in", "of", "the", "on", "at", "under", "from"}


def test_every_word_of_the_captions_is_known() -> None:
    rng = np.random.default_rng(0)
    texts = [caption(scene, rng) for scene in scenes() for _ in range(200)]
    texts += [view.prompt for scene in scenes() for view in scene.starts]
    words = {word for text in texts for word in re.findall("[a-z]+", text.lower())}
    assert words - SMALL_WORDS <= set(POCKET_TEXT.words)
    assert set(POCKET_TEXT.words) <= words
    assert all(
        len(set(re.findall("[a-z]+", t)) - SMALL_WORDS) <= POCKET_TEXT.text_len for t in texts
    )


def test_the_rig_is_that_of_the_preset() -> None:
    assert get_preset("pocket").rig == RIG


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_scenes_fit_their_cells_and_repeat(scene) -> None:
    assert arrays(scene).prims.shape == (4, MAX_PRIMS, 9)
    for view in scene.starts:
        assert clearance(scene, view.x, view.z) > KEEP_AWAY
    renderer = Renderer(scene)
    pose = view_state(scene.starts[0]).c2w.copy()
    pose[:3, 3] *= METRES
    again = pose.copy()
    again[0, 3] += 3 * PERIOD
    again[2, 3] -= 5 * PERIOD
    picture = renderer.frame(pose)
    assert picture.shape == (96, 160, 3)
    assert measures.psnr(picture, renderer.frame(again)) > 45
    assert measures.edge_energy(picture) > 1.0


def test_turning_right_moves_the_picture_left() -> None:
    scene = scenes()[0]
    state = view_state(scene.starts[0])
    pictures = []
    for _ in range(2):
        pose = state.c2w.copy()
        pose[:3, 3] *= METRES
        pictures.append(Renderer(scene).frame(pose).astype(np.float32))
        state = advance(state, "l", RIG)
    shift = 8  # pixels: five degrees at the picture's centre
    left = np.abs(pictures[0][:, 40 + shift : 120 + shift] - pictures[1][:, 40:120]).mean()
    right = np.abs(pictures[0][:, 40 - shift : 120 - shift] - pictures[1][:, 40:120]).mean()
    assert left < 0.6 * right


def test_walks_keep_away_and_use_every_command() -> None:
    pressed: Counter[str] = Counter()
    for i in range(90):
        walk = make_walk(i % 3, walk_seed("test", i), 17)
        scene = scenes()[walk.scene]
        for pose in walk.c2w:
            assert clearance(scene, pose[0, 3] * METRES, pose[2, 3] * METRES) >= KEEP_AWAY - 1e-6
        for keys in walk.keys[1:]:
            pressed.update(keys or " ")
    latents = 90 * 16
    for key in "wsadijkl ":
        assert pressed[key] / latents > 0.05, f"too little of {key!r}"


def test_motion_is_constant_inside_a_latent_frame() -> None:
    walk = make_walk(1, walk_seed("test", 4), 9)
    poses = frame_poses(walk)
    assert len(poses) == 33
    np.testing.assert_allclose(poses[::4, :3, 3], walk.c2w[:, :3, 3] * METRES, atol=1e-9)
    steps = np.diff(poses[:, :3, 3], axis=0).reshape(8, 4, 3)
    np.testing.assert_allclose(steps, np.repeat(steps[:, :1], 4, axis=1), atol=1e-9)


def test_relative_poses_are_those_of_serving() -> None:
    walk = make_walk(2, walk_seed("test", 2), 12)
    rel = relative_poses(walk)
    assert np.array_equal(rel[0], np.eye(4))
    lengths = np.linalg.norm(rel[:, :3, 3], axis=-1)
    walking = np.array([any(key in keys for key in "wasd") for keys in walk.keys])
    np.testing.assert_allclose(lengths[walking], 1.0, atol=1e-5)
    np.testing.assert_allclose(lengths[~walking], 0.0, atol=1e-5)


def test_measures_see_blur_and_emptying() -> None:
    picture = Renderer(scenes()[0]).frame(np.eye(4))[None]
    empty = np.broadcast_to(picture.mean(axis=2, keepdims=True), picture.shape).astype(np.uint8)
    assert measures.psnr(picture, picture) == 99.0
    assert measures.edge_energy(empty) < 0.1 * measures.edge_energy(picture)
    assert measures.column_band(empty) < 0.1 * measures.column_band(picture)
    assert measures.colour_error(picture, empty) < 0.01
    assert measures.colour_error(picture, 255 - picture) > 0.05


def test_the_sampler_that_is_judged_is_that_of_the_preset() -> None:
    sampler = get_preset("pocket").sampler
    schedule = official_schedule(sampler.shift, sampler.steps)
    np.testing.assert_allclose(SHIPPED[:-1], schedule.sigma_x0, atol=1e-3)
