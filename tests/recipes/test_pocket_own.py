"""Film with poses becomes the shards that rendered walks are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import own
from recipes.pocket.encode import WALKS
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import scenes
from recipes.pocket.shards import read
from recipes.pocket.walks import (
    METRES,
    RIG,
    Walk,
    frame_poses,
    make_walk,
    relative_poses,
    render,
    walk_seed,
)
from worldline.core.errors import InputError


def film(folder: Path, walk: Walk, *, every: int = 1) -> np.ndarray:
    """Leave a walk as pictures and poses; the frames as rendered."""
    frames, poses = render(walk, [Renderer(scene) for scene in scenes()]), frame_poses(walk)
    folder.mkdir(parents=True)
    for i in range(0, len(frames), every):
        Image.fromarray(frames[i]).save(folder / f"{i:05d}.png")
    np.save(folder / "poses.npy", poses[::every])
    return frames


def brisk_walk(latents: int) -> Walk:
    """A walk that goes somewhere, so that its full speed can be seen."""
    walks = (make_walk(1, walk_seed("own", i), latents) for i in range(50))
    return max(walks, key=lambda walk: sum("w" in keys for keys in walk.keys))


def run(*arguments: str) -> None:
    """The command line."""
    before, sys.argv = sys.argv, ["own", *arguments]
    try:
        own.main()
    finally:
        sys.argv = before


def test_a_rendered_walk_comes_back_as_it_went(tmp_path: Path) -> None:
    walk = brisk_walk(9)
    frames = film(tmp_path / "clips" / scenes()[1].name / "one", walk)
    where = ("--clips", str(tmp_path / "clips"), "--out", str(tmp_path / "walks"))
    run(*where, "--latents", "5", "--walks", "2")
    shard = read(tmp_path / "walks" / "walks-0000.npz", WALKS, also=("scene",))
    order = np.argsort([np.abs(w.astype(int) - frames[:17]).mean() for w in shard["frames"]])
    assert np.array_equal(shard["frames"][order], np.stack([frames[:17], frames[16:]]))
    rel = relative_poses(walk)
    expected = np.stack([rel[:5], np.concatenate([np.eye(4)[None], rel[5:]])])
    np.testing.assert_allclose(shard["rel"][order], expected, atol=1e-4)
    assert (shard["scene"] == 1).all()


def test_a_film_of_another_rate_is_brought_to_ours(tmp_path: Path) -> None:
    walk = brisk_walk(9)
    frames = film(tmp_path / "world" / "one", walk, every=2)
    clip = own.read_clip(tmp_path / "world" / "one", 0, fps=8.0)
    assert clip.frames.shape == frames.shape
    assert np.array_equal(clip.frames[::2], frames[::2])
    step = RIG.move * METRES / own.STRIDE
    assert np.linalg.norm(np.diff(clip.c2w[:, :3, 3], axis=0), axis=-1).max() <= step + 1e-6


def test_a_picture_of_another_shape_loses_its_sides() -> None:
    wide = Image.fromarray(np.repeat(np.arange(250, dtype=np.uint8)[None], 96, 0)).convert("RGB")
    assert own.fit(wide).shape == (96, 160, 3)
    assert own.fit(wide)[0, [0, -1], 0].tolist() == pytest.approx([45, 204], abs=2)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    (tmp_path / "Atlantis" / "one").mkdir(parents=True)
    with pytest.raises(InputError, match="Atlantis"):
        own.read_clips(tmp_path, 16.0)
    clip = tmp_path / "clip"
    film(clip, make_walk(0, 1, 3))
    np.save(clip / "poses.npy", np.tile(np.eye(4), (4, 1, 1)))
    with pytest.raises(InputError, match="one per picture"):
        own.read_clip(clip, 0, 16.0)
    still = own.Clip(0, np.zeros((9, 96, 160, 3), np.uint8), np.tile(np.eye(4), (9, 1, 1)))
    with pytest.raises(InputError, match="nothing moves"):
        own.full_speed([still])
