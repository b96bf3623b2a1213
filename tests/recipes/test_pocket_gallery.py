"""The packaged gallery is that of the worlds that the packed weights know, and small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.gallery import (
    GALLERY,
    LIMIT,
    entry,
    in_order,
    known_scenes,
    knows,
    packed_words,
    picture,
    write,
)
from recipes.pocket.scenes import Scene, StartView, scenes
from worldline.models.pocket.params import POCKET_TEXT

VIEWS = list(in_order(known_scenes()))
WRITE = "run `python -m recipes.pocket.gallery`"


def test_the_packaged_gallery_is_that_of_the_known_worlds() -> None:
    packaged = json.loads((GALLERY / "gallery.json").read_text())
    assert packaged == [entry(scene, view) for scene, view in VIEWS], WRITE
    assert len(packaged) >= 6
    named = {name for e in packaged for name in (e["file"], e["preview"], e["tile"])}
    assert {path.name for path in GALLERY.iterdir()} == named | {"gallery.json"}, WRITE
    assert len(named) == 3 * len(packaged), "every view needs a name of its own"
    assert sum(path.stat().st_size for path in GALLERY.iterdir()) <= LIMIT


def test_a_world_is_known_when_none_of_its_words_is_missing() -> None:
    every = frozenset(POCKET_TEXT.words)
    assert packed_words() <= every
    assert all(knows(every, scene) for scene in scenes())
    first, *_, last = scenes()
    assert knows(packed_words(), first)
    assert not knows(every - {"plum"}, last)
    assert knows(every - {"plum"}, first)


def test_a_world_that_is_gone_takes_its_files_along(tmp_path: Path) -> None:
    one, two = scenes()[:2]
    write(tmp_path, (one, two))
    left = write(tmp_path, (one,))
    named = {str(files[key]) for files in left for key in ("file", "preview", "tile")}
    assert {path.name for path in tmp_path.iterdir()} == named | {"gallery.json"}
    assert {files["world"] for files in left} == {one.name}


def test_every_world_comes_once_before_any_comes_twice() -> None:
    views = list(in_order(scenes()))
    first = [scene.name for scene, _ in views[: len(scenes())]]
    assert first == [scene.name for scene in scenes()]
    assert len(views) == sum(len(scene.starts) for scene in scenes())


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
