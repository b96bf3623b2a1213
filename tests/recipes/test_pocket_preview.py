"""The README's moving picture: its walks keep to the map, and it is what the model generates."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

pytest.importorskip("numba", reason="the recipe renders with numba")

import worldline
from recipes.pocket.gallery import known_scenes
from recipes.pocket.preview import (
    ACTS,
    FPS,
    LIMIT,
    OUT,
    Act,
    Shown,
    draw,
    encode,
    keys_of,
    played,
    walk,
)
from recipes.pocket.scenes import clearance, scenes
from recipes.pocket.walks import KEEP_AWAY, METRES, RIG, view_state
from worldline.core.camera import advance


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.view)
def test_the_walks_keep_away_from_everything_before_and_after_the_change(act: Act) -> None:
    named = {scene.name: scene for scene in scenes()}
    views = {view.name: (scene, view) for scene in scenes() for view in scene.starts}
    scene, view = views[act.view]
    state = view_state(view)
    for world, path in ((scene, act.path), (named[act.world], act.on)):
        for keys in keys_of(path):
            state = advance(state, keys, RIG)
            x, _, z = state.c2w[:3, 3] * METRES
            assert clearance(world, float(x), float(z)) >= KEEP_AWAY
    assert act.world != scene.name
    assert named[act.world].layout == scene.layout, "without the change the map is the same"


def test_every_world_that_the_weights_know_is_shown_and_no_other_entered() -> None:
    homes = {view.name: scene.name for scene in scenes() for view in scene.starts}
    assert {homes[act.view] for act in ACTS} | {act.world for act in ACTS} == {
        scene.name for scene in scenes()
    }
    known = {scene.name for scene in known_scenes()}
    entered = {homes[act.view] for act in played()}
    assert entered <= known
    assert known - {act.world for act in ACTS} == entered


def test_a_walk_shows_the_models_own_pictures_keys_and_prompts() -> None:
    act = Act("Red columns at dusk", "w-1", "noon meadow", "-1 jd-1")
    world = worldline.load("pocket", device="cpu", threads=1)
    shown = list(walk(world, act))
    assert [one.keys for one in shown] == ["", *["w"] * 4, *[""] * 4, *["jd"] * 4]
    assert ["meadow" in one.prompt for one in shown] == [False] * 5 + [True] * 8
    again = list(walk(world, act))
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(shown, again, strict=True))


def test_a_world_that_the_gallery_lacks_changes_nothing() -> None:
    world = worldline.load("pocket", device="cpu", threads=1)
    act = Act("Red columns at dusk", "w-1", "a world of its own", "-1")
    assert len({one.prompt for one in walk(world, act)}) == 1


def test_held_keys_are_lit_and_nothing_else_is_touched() -> None:
    grey = np.full((96, 160, 3), 90, np.uint8)
    free, held = (np.asarray(draw(Shown(grey, keys, "a meadow"))) for keys in ("", "w"))
    changed = np.argwhere((free != held).any(-1))
    low, high = changed.min(0), changed.max(0)
    assert held[low[0] + 3, low[1] + 8].min() > 200, "the key is white"
    assert (high - low <= 27).all()
    assert np.array_equal(free[:250], np.full((250, 640, 3), 90))


def test_the_film_keeps_its_size_and_its_time() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (96, 160, 3), np.uint8)) for _ in range(2 * FPS)
    ]
    large = encode(pictures)
    small = encode(pictures, limit=3 * len(large) // 4)
    assert len(small) <= 3 * len(large) // 4
    with Image.open(io.BytesIO(small)) as film:
        times = [frame.info["duration"] for frame in ImageSequence.all_frames(film)]
    assert sum(times) == 2000
    with pytest.raises(ValueError, match="do not fit"):
        encode(pictures, limit=100)


def test_the_committed_film_is_within_its_limit() -> None:
    assert OUT.stat().st_size <= LIMIT
    with Image.open(OUT) as film:
        assert film.format == "WEBP"
        assert sum(1 for _ in ImageSequence.Iterator(film)) > 100
