"""The pocket worlds: renderer, walks with the product's rig, captions, measures."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import MAX_PRIMS, PERIOD, Scene, arrays, caption, clearance, scenes
from recipes.pocket.streaming import SHIPPED
from recipes.pocket.walks import (
    KEEP_AWAY,
    METRES,
    NEVER,
    RIG,
    frame_poses,
    make_walk,
    relative_poses,
    render,
    view_state,
    walk_seed,
)
from worldline.core.camera import advance
from worldline.models.pocket.params import POCKET_TEXT
from worldline.models.registry import get_preset
from worldline.sampling.schedules import official_schedule

SMALL_WORDS = {"a", "an", "with", "and", "in", "of", "the", "on", "at", "under", "from"}


def words_of(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower())) - SMALL_WORDS


def test_every_word_of_the_captions_is_known() -> None:
    """Of all parts a caption can be made of, not of a sample; and no known word is never said."""
    texts = [part for scene in scenes() for parts in scene.words.values() for part in parts]
    texts += [view.prompt for scene in scenes() for view in scene.starts]
    said = set[str]().union(*map(words_of, texts))
    assert said - set(POCKET_TEXT.words) == set()
    assert set(POCKET_TEXT.words) - said == set()
    for scene in scenes():
        rng = np.random.default_rng(0)
        longest = max(len(words_of(caption(scene, rng))) for _ in range(300))
        assert longest <= POCKET_TEXT.text_len, "words that would be cut off"


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_a_world_is_captioned_in_many_ways_of_its_own(scene: Scene) -> None:
    rng = np.random.default_rng(1)
    texts = {caption(scene, rng) for _ in range(200)}
    assert len(texts) > 60
    assert texts == {text.strip(" ,") for text in texts} and "" not in texts
    own = set[str]().union(*(words_of(part) for parts in scene.words.values() for part in parts))
    for text in texts:
        assert words_of(text) <= own, text
    for other in scenes():
        for part in ("place", "thing"):
            shared = set(scene.words[part]) & set(other.words[part])
            assert other.name == scene.name or not shared, "one name for two worlds"


def test_each_world_has_start_views_and_a_twin_in_another_light() -> None:
    worlds = scenes()
    assert len({scene.name for scene in worlds}) == len(worlds) == 8
    assert sum(len(scene.starts) for scene in worlds) >= 12, "too few for the gallery"
    for scene in worlds:
        assert scene.starts
        twins = [other for other in worlds if other.layout == scene.layout]
        for twin in twins:
            assert [[p[:6] for p in cell] for cell in twin.cells] == [
                [p[:6] for p in cell] for cell in scene.cells
            ], "the same objects stand in both"
            assert np.array_equal(arrays(twin).tiles, arrays(scene).tiles)


def test_the_rig_is_that_of_the_preset() -> None:
    assert get_preset("pocket").rig == RIG


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_scenes_fit_their_cells_and_repeat(scene: Scene) -> None:
    assert arrays(scene).prims.shape == (4, MAX_PRIMS, 10)
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


def test_walks_are_the_same_each_time_and_apart_for_each_number() -> None:
    for switch in (False, True):
        one, again = (make_walk(3, walk_seed("test", 5), 17, switch=switch) for _ in range(2))
        assert np.array_equal(one.c2w, again.c2w)
        assert (one.keys, one.from_view, one.switch, one.after) == (
            again.keys, again.from_view, again.switch, again.after,
        )  # fmt: skip
    paths = {make_walk(3, walk_seed(split, i), 17).keys for i in range(10) for split in "ab"}
    assert len(paths) == 20
    assert len({walk_seed(s, i) for s in ("train", "val", "test") for i in range(9)}) == 27


def test_walks_keep_away_and_use_every_command() -> None:
    pressed: Counter[str] = Counter()
    for i in range(96):
        walk = make_walk(i % 8, walk_seed("test", i), 17)
        assert walk.switch == NEVER
        scene = scenes()[walk.scene]
        for pose in walk.c2w:
            assert clearance(scene, pose[0, 3] * METRES, pose[2, 3] * METRES) >= KEEP_AWAY - 1e-6
        for keys in walk.keys[1:]:
            pressed.update(keys or " ")
    latents = 96 * 16
    for key in "wsadijkl ":
        assert pressed[key] / latents > 0.05, f"too little of {key!r}"


def test_a_walk_that_changes_its_world_keeps_away_in_both() -> None:
    changed, twins = 0, 0
    for i in range(160):
        walk = make_walk(i % 8, walk_seed("test", i), 17, switch=True)
        if walk.switch == NEVER:
            assert {walk.world(latent) for latent in range(17)} == {walk.scene}
            continue
        changed += 1
        before, after = scenes()[walk.scene], scenes()[walk.after]
        twins += before.layout == after.layout
        assert walk.after != walk.scene and 2 <= walk.switch < 15
        assert [walk.world(latent) for latent in range(17)] == [walk.scene] * walk.switch + [
            walk.after
        ] * (17 - walk.switch)
        if walk.from_view:  # a start view need not have room in the other world: never nearer then
            continue
        for room in (before, after):
            for pose in walk.c2w:
                assert clearance(room, pose[0, 3] * METRES, pose[2, 3] * METRES) >= KEEP_AWAY - 1e-6
    assert 0.2 < changed / 160 < 0.5
    assert 0.4 < twins / changed < 0.85


def test_a_walk_from_a_view_comes_no_nearer_in_either_world() -> None:
    for i in range(160):
        walk = make_walk(i % 8, walk_seed("test", i), 17, switch=True)
        for world in {walk.scene, walk.world(16)} if walk.from_view else set():
            room = [
                clearance(scenes()[world], pose[0, 3] * METRES, pose[2, 3] * METRES)
                for pose in walk.c2w
            ]
            floor = min(KEEP_AWAY, room[0])
            assert min(room) >= floor - 1e-6, f"walk {i} enters {scenes()[world].name}"


def test_the_picture_changes_with_the_world_at_a_latent_frame() -> None:
    renderers = [Renderer(scene) for scene in scenes()]
    walk = make_walk(0, walk_seed("test", 3), 5)._replace(switch=3, after=6)
    frames = render(walk, renderers)
    for world, part in ((0, slice(0, 9)), (6, slice(9, 17))):
        whole = render(walk._replace(scene=world, switch=NEVER), renderers)
        assert np.array_equal(frames[part], whole[part])
        assert not np.array_equal(frames, whole)


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
