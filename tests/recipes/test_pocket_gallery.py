"""The packaged gallery is what the worlds say: names, prompts, seeds and pixels, and small."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.gallery import GALLERY, LIMIT, entry, in_order, picture
from recipes.pocket.scenes import Scene, StartView, scenes

VIEWS = list(in_order())
WRITE = "run `python -m recipes.pocket.gallery`"


def test_the_packaged_gallery_is_that_of_the_scenes() -> None:
    packaged = json.loads((GALLERY / "gallery.json").read_text())
    assert packaged == [entry(scene, view) for scene, view in VIEWS], WRITE
    assert len(packaged) >= 12
    named = {name for e in packaged for name in (e["file"], e["preview"], e["tile"])}
    assert {path.name for path in GALLERY.iterdir()} == named | {"gallery.json"}, WRITE
    assert len(named) == 3 * len(packaged), "every view needs a name of its own"
    assert sum(path.stat().st_size for path in GALLERY.iterdir()) <= LIMIT


def test_every_world_comes_once_before_any_comes_twice() -> None:
    first = [scene.name for scene, _ in VIEWS[: len(scenes())]]
    assert first == [scene.name for scene in scenes()]
    assert len(VIEWS) == sum(len(scene.starts) for scene in scenes())


@pytest.mark.parametrize(("scene", "view"), VIEWS, ids=[view.name for _, view in VIEWS])
def test_a_start_picture_is_what_the_training_shows(scene: Scene, view: StartView) -> None:
    files = entry(scene, view)
    packaged = np.asarray(Image.open(GALLERY / str(files["file"])))
    assert packaged.shape == (96, 160, 3)
    # Not bit for bit: the renderer's fused arithmetic differs a little between processors.
    assert measures.psnr(packaged, picture(scene, view)) > 45, WRITE
    small = np.asarray(Image.open(GALLERY / str(files["tile"])).resize((160, 96)))
    assert measures.psnr(packaged, small) > 25, WRITE
    with Image.open(GALLERY / str(files["preview"])) as preview:
        assert preview.size == (1280, 768)
