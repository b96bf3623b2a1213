"""The short form of the long walk, and its walker on the map."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page

pytest.importorskip("numba", reason="the map is that of the recipe, which renders with numba")

from recipes.pocket.scenes import Scene, scenes
from tests.e2e.long_walk import walk
from tests.e2e.wander import CLEAR, Walker


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_the_walker_gets_about_and_never_into_anything(scene: Scene) -> None:
    walker = Walker(scene, scene.starts[0])
    start, furthest = walker.state.c2w[:3, 3], 0.0
    least = min(CLEAR, walker.room())
    late = 0
    for _ in range(120):
        leg = walker.next_leg()
        late = 1 - late
        walker.walked(leg.keys, leg.latents + late)  # presses last a little longer than meant
        assert walker.room() >= least - 1e-6
        furthest = max(furthest, float(abs(walker.state.c2w[:3, 3] - start).max()))
    assert furthest > 1.0, "a unit is seven metres"
    assert {"w", "j", "l"} <= set("".join(walker.held))


@pytest.mark.browser
@pytest.mark.timeout(400)
def test_a_short_walk_is_measured_and_pictured(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    picture = tmp_path / "early.jpg"
    report = walk(page, 12.0, {picture: 2.0})
    assert report["frames"] > 12
    assert report["key_to_picture_ms"]["count"] >= 2
    assert report["key_to_picture_ms"]["median"] <= report["key_to_picture_ms"]["p95"]
    assert report["prompt_shown_after_s"] is not None
    assert sum(report["latent_frames_held"].values()) >= 2
    assert report["closest_m"] > 1.0
    with Image.open(picture) as image:
        assert image.size == (1280, 768)
    assert complaints == []
