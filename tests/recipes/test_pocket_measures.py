"""The measures on true renders and on pictures broken on purpose: each must move the right way."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.judge_objects import count_each, count_objects, pitch_of
from recipes.pocket.layouts import CONE, SPHERE, Prim
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import CELL, EYE, Scene, scenes
from recipes.pocket.walks import METRES, Walk, make_walk, walk_seed

WORLDS = scenes()
EVERY, LATENTS = 8, 25
NEAR = 16.0  # metres: what the counter calls clear


def poses_of(walk: Walk) -> np.ndarray:
    """Every eighth pose of a walk in metres."""
    poses = walk.c2w[::EVERY].copy()
    poses[:, :3, 3] *= METRES
    return poses


@pytest.fixture(scope="module")
def seen() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Some true pictures `[F, H, W, 3]` of every world, and their poses in metres."""
    found = {}
    for i, scene in enumerate(WORLDS):
        walks = [make_walk(i, walk_seed("test", 700 + i + 8 * n), LATENTS) for n in range(2)]
        poses = np.concatenate([poses_of(walk) for walk in walks])
        found[i] = np.stack([Renderer(scene).frame(pose) for pose in poses]), poses
    return found


def fogged(pictures: np.ndarray, scene: Scene, share: float) -> np.ndarray:
    """Pictures blended with the colour of their world's fog."""
    fog = np.array(scene.horizon) * 255
    return (pictures * (1 - share) + fog * share).astype(np.uint8)


def emptied(pictures: np.ndarray) -> np.ndarray:
    """Every row in its median colour: ground and sky without anything on them."""
    rows = np.median(pictures, axis=-2, keepdims=True)
    return np.broadcast_to(rows, pictures.shape).astype(np.uint8)


def test_psnr_falls_with_the_error(seen) -> None:
    pictures = seen[0][0]
    near = np.clip(pictures.astype(int) + 5, 0, 255).astype(np.uint8)
    assert (measures.psnr(pictures, pictures) == 99).all()
    assert (measures.psnr(near, pictures) > 33).all()
    assert (measures.psnr(emptied(pictures), pictures) < measures.psnr(near, pictures)).all()


def test_drawn_seams_are_found_and_noise_is_none() -> None:
    rng = np.random.default_rng(0)
    true = np.full((2, 96, 160, 3), 120, np.uint8)
    noisy = (true + rng.normal(0, 6, true.shape)).astype(np.uint8)
    blocks = rng.normal(0, 8, (2, 12, 20, 3)).repeat(8, axis=1).repeat(8, axis=2)
    seamed = (noisy + blocks).clip(0, 255).astype(np.uint8)
    assert measures.seam_ratio(noisy, true) == pytest.approx(1.0, abs=0.05)
    assert measures.seam_ratio(seamed, true) > 1.5
    assert measures.seam_ratio(np.roll(seamed, 4, axis=(1, 2)), true) < 1.0


@pytest.mark.parametrize("world", range(len(WORLDS)), ids=lambda i: WORLDS[i].name)
def test_fog_and_emptying_cost_edges_and_colour_shifts_do_not(seen, world: int) -> None:
    pictures, _ = seen[world]
    shifted = (pictures * 0.8 + 25).astype(np.uint8)
    for measure in (measures.edge_energy, measures.column_band):
        whole = measure(pictures).mean()
        assert measure(fogged(pictures, WORLDS[world], 0.3)).mean() < 0.8 * whole
        assert measure(emptied(pictures)).mean() < 0.15 * whole
        assert measure(pictures).mean() * 0.7 < measure(shifted).mean() < whole
    assert measures.colour_error(shifted, pictures).mean() > 0
    assert measures.colour_error(255 - pictures, pictures).mean() > 0.05
    dark = (pictures * 0.7).astype(np.uint8)
    assert (measures.light(dark) < 0.75 * measures.light(pictures)).all()


def test_blur_makes_edges_less_steep_and_fog_alone_does_so_too(seen) -> None:
    for pictures, _ in seen.values():
        soft = np.mean([np.roll(pictures.astype(np.float32), k, -2) for k in (-2, 0, 2)], axis=0)
        whole = measures.sharpness(pictures)
        assert (measures.sharpness(soft.astype(np.uint8)) < 0.7 * whole).all()
        assert (
            measures.edge_energy(soft.astype(np.uint8)) > 0.6 * measures.edge_energy(pictures)
        ).all()


def test_bands_are_the_colours_of_sky_and_ground(seen) -> None:
    for i, scene in enumerate(WORLDS):
        sky, ground = np.median(measures.bands(seen[i][0]), axis=0)
        between = (np.array(scene.ground_a) + scene.ground_b) / 2
        assert np.abs(ground - between).mean() < 0.12, scene.name
        low, high = np.minimum(scene.horizon, scene.zenith), np.maximum(scene.horizon, scene.zenith)
        assert (sky > low - 0.1).all() and (sky < high + 0.1).all(), scene.name


def test_the_palette_of_every_world_is_recognised_even_when_faded(seen) -> None:
    for i in range(len(WORLDS)):
        pose = seen[i][1][0]
        true = np.stack([Renderer(scene).frame(pose) for scene in WORLDS])[:, None]
        assert measures.nearest_palette(true[i], true) == i
        assert measures.nearest_palette(emptied(true[i]), true) == i
        other = (i + 3) % len(WORLDS)
        mixed = (0.8 * true[other] + 0.2 * true[i]).astype(np.uint8)
        assert measures.nearest_palette(mixed, true) == other


def test_layouts_are_told_apart_whatever_their_colours(seen) -> None:
    right = []
    for i, scene in enumerate(WORLDS):
        twin = next(
            j for j, s in enumerate(WORLDS) if s.layout == scene.layout and j != i
        )  # fmt: skip
        foreign = next(j for j, s in enumerate(WORLDS) if s.layout != scene.layout)
        for pose, picture in zip(seen[i][1], seen[i][0], strict=True):
            same, other = (Renderer(WORLDS[j]).frame(pose) for j in (twin, foreign))
            likeness = measures.layout_likeness
            right.append(likeness(same, picture) > likeness(other, picture))
    assert np.mean(right) > 0.95


def standing(scene: Scene, pose: np.ndarray) -> int:
    """Objects within NEAR that should be seen at the horizon, from the scene's own numbers."""
    here, ahead = pose[[0, 2], 3], pose[[0, 2], 2]
    spans = []
    for ix in range(int(here[0] // CELL) - 3, int(here[0] // CELL) + 4):
        for iz in range(int(here[1] // CELL) - 3, int(here[1] // CELL) + 4):
            for prim in scene.cells[ix % 2 + 2 * (iz % 2)]:
                centre = np.array([(ix + 0.5) * CELL + prim.x, (iz + 0.5) * CELL + prim.z]) - here
                span = _span(prim, centre, float(np.arctan2(*ahead)))
                if span is not None and span[1] - span[0] >= 2:
                    spans.append(span)
    count, end = 0, -9.0
    for low, high in sorted(spans):
        count += low - end > 2
        end = max(end, high)
    return count


def _span(prim: Prim, centre: np.ndarray, yaw: float) -> tuple[float, float] | None:
    """Pixel columns that a primitive covers at eye height; None when it is not there."""
    distance = float(np.hypot(*centre))
    if distance > NEAR or not prim.bottom < EYE - 0.05 < prim.top:
        return None
    angle = (np.arctan2(*centre) - yaw + np.pi) % (2 * np.pi) - np.pi
    if abs(angle) > 1.1:
        return None
    radius = prim.radius
    if prim.kind == CONE:
        radius *= (prim.top - EYE) / (prim.top - prim.bottom)
    if prim.kind == SPHERE:
        radius = np.sqrt(max(0.0, radius**2 - ((prim.top + prim.bottom) / 2 - EYE) ** 2))
    half = np.arcsin(min(1.0, radius / distance))
    low, high = (96.15 * np.tan(angle + side) + 80 for side in (-half, half))
    return max(float(low), 0.0), min(float(high), 160.0)


def test_objects_are_counted_as_the_scene_says(seen) -> None:
    counted, there = [], []
    for i, scene in enumerate(WORLDS):
        pictures, poses = seen[i]
        counted.append(count_each(pictures, scene, poses))
        there.append([standing(scene, pose) for pose in poses])
        assert counted[-1].mean() == pytest.approx(np.mean(there[-1]), rel=0.3), scene.name
    counted, there = np.concatenate(counted), np.concatenate(there)
    assert np.mean(np.abs(counted - there) <= 1) > 0.9
    assert counted.mean() == pytest.approx(there.mean(), rel=0.12)
    assert np.corrcoef(counted, there)[0, 1] > 0.6


@pytest.mark.parametrize("world", range(len(WORLDS)), ids=lambda i: WORLDS[i].name)
def test_emptied_and_fogged_worlds_have_fewer_objects(seen, world: int) -> None:
    scene, (pictures, poses) = WORLDS[world], seen[world]
    whole = count_each(pictures, scene, poses).mean()
    assert whole > 1.5
    assert count_each(emptied(pictures), scene, poses).mean() < 0.2 * whole
    assert count_each(fogged(pictures, scene, 0.8), scene, poses).mean() < 0.5 * whole


def test_the_count_forgives_drifted_colours_and_a_drifted_horizon(seen) -> None:
    for i, scene in enumerate(WORLDS):
        pictures, poses = seen[i]
        whole = count_each(pictures, scene, poses).mean()
        tinted = np.clip(pictures.astype(int) + np.array([8, 0, -8]), 0, 255).astype(np.uint8)
        moved = np.roll(pictures, 5, axis=1)
        for broken in (tinted, moved):
            assert count_each(broken, scene, poses).mean() == pytest.approx(whole, rel=0.3)


def test_the_pitch_of_a_pose_is_that_of_the_rig() -> None:
    walk = make_walk(0, walk_seed("test", 5), 40)
    pitch = np.array([pitch_of(pose) for pose in walk.c2w])
    up = np.array(["i" in keys for keys in walk.keys[1:]])
    down = np.array(["k" in keys for keys in walk.keys[1:]])
    assert up.any() and down.any()
    np.testing.assert_allclose(np.diff(pitch)[up], 3.0, atol=1e-6)
    np.testing.assert_allclose(np.diff(pitch)[down], -3.0, atol=1e-6)


def test_nothing_but_fog_holds_no_object() -> None:
    fog = np.zeros((96, 160, 3)) + np.array(WORLDS[0].horizon) * 255
    assert count_objects(fog.astype(np.uint8), WORLDS[0], 0.0) == 0
