"""`generate`: camera paths fitted as the official code does, and films on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worldline.cli.generate import CameraPath, fit_path
from worldline.cli.main import main
from worldline.core.actions import parse_action_string
from worldline.core.camera import framewise_relative, interpolate_poses, poses_from_keys

Film = Callable[..., dict[str, Any]]


def keys_path(actions: str) -> CameraPath:
    """The camera path of an action string."""
    keys = parse_action_string(actions)
    return CameraPath(poses_from_keys(keys.wasd, keys.ijkl), keys.wasd, None)


def line_path(frames: int) -> CameraPath:
    """A recorded path: forwards, ever faster."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames) ** 2
    return CameraPath(poses, None, None)


# Latent frames of the official code: F + 1 poses are padded up to 4n + 1 frames.
@pytest.mark.parametrize(
    ("actions", "frames"), [("w-10,iw-15,none-5", 33), ("w-90", 93), ("w-32", 33), ("w-14", 17)]
)
def test_action_strings_have_the_official_length(actions: str, frames: int) -> None:
    motion = fit_path(keys_path(actions), 1, None)
    assert motion.relative is not None and motion.keys is not None
    assert motion.relative.shape == (motion.chunks, 4, 4)
    assert motion.keys.shape == (motion.chunks, 4)
    assert 4 * (motion.chunks - 1) + 1 == frames


def test_a_recorded_path_is_cut_to_whole_chunks_and_still_spanned() -> None:
    path = line_path(40)  # 37 usable frames, 10 latent ones, 3 chunks of 3
    motion = fit_path(path, 3, None)
    assert motion.chunks == 3 and motion.relative is not None
    expected = framewise_relative(interpolate_poses(path.c2w[:37], 9))
    assert np.array_equal(motion.relative, expected)


def test_a_chosen_length_takes_one_pose_per_pixel_frame() -> None:
    path = line_path(100)
    motion = fit_path(path, 2, 3)
    expected = framewise_relative(path.c2w[:21:4])
    assert motion.relative is not None
    np.testing.assert_allclose(motion.relative, expected, atol=1e-6)
    assert np.linalg.norm(motion.relative[:, :3, 3], axis=-1).max() == pytest.approx(1.0)


def test_a_path_shorter_than_the_film_stands_still_at_its_end() -> None:
    motion = fit_path(keys_path("w-8"), 1, 6)
    assert motion.relative is not None and motion.keys is not None
    steps = np.linalg.norm(motion.relative[:, :3, 3], axis=-1)
    np.testing.assert_allclose(steps, [0, 1, 1, 0, 0, 0], atol=1e-6)
    assert motion.keys[:, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_no_path_stands_still() -> None:
    assert fit_path(None, 3, 5) == (5, None, None)


def test_a_recording_by_the_full_decoder_is_the_full_film(film: Film, tmp_path: Path) -> None:
    walk = ["--actions", "w-8"]
    shown = film(*walk, "--out", tmp_path / "shown")
    recorded = film(*walk, "--record-decoder", "full", "--out", tmp_path / "recorded")
    assert recorded["sha256"] == shown["sha256"]
    assert len(list((tmp_path / "recorded").iterdir())) == recorded["frames"] == shown["frames"]


@pytest.fixture
def film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Film:
    """Generate a film with random weights; returns its JSON."""
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)

    def run(*arguments: str | Path) -> dict[str, Any]:
        command = ["generate", "--random-weights", "--json", "--image", picture]
        command += ["--prompt", "a place", *arguments]
        assert main([str(argument) for argument in command]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_folder_of_pictures(film: Film, tmp_path: Path) -> None:
    done = film("--actions", "w-4,jw-4", "--out", tmp_path / "frames")
    files = sorted((tmp_path / "frames").iterdir())
    assert done["chunks"] == 3
    assert done["frames"] == len(files) == 9
    with Image.open(files[-1]) as last:
        assert last.size == (done["width"], done["height"])
    assert done["fps"] == pytest.approx(done["frames"] / done["seconds"], rel=0.02)


def test_a_film(film: Film, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    done = film("--actions", "w-4", "--chunks", "2", "--out", tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == done["frames"] == 5
    assert frames[0].shape == (done["height"], done["width"], 3)


def test_recorded_poses_with_other_numbers(film: Film, tmp_path: Path) -> None:
    np.save(tmp_path / "poses.npy", line_path(60).c2w)
    np.save(tmp_path / "intrinsics.npy", np.tile([400.0, 400.0, 416.0, 240.0], (60, 1)))
    arguments: list[str | Path] = ["--chunk", "2", "--window", "4", "--sink", "1", "--steps", "2"]
    arguments += ["--size", "96x160", "--chunks", "3", "--out", tmp_path / "frames"]
    arguments += ["--poses", tmp_path / "poses.npy", "--intrinsics", tmp_path / "intrinsics.npy"]
    done = film(*arguments)
    assert (done["width"], done["height"]) == (96, 160)
    assert done["frames"] == 5 + 8 + 8


def test_same_seed_same_film(film: Film, tmp_path: Path) -> None:
    sums = [
        film("--actions", "w-8", "--seed", seed, "--out", tmp_path / str(i))["sha256"]
        for i, seed in enumerate(["1", "1", "2"])
    ]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize(
    ("out", "text"),
    [("film.avi", "cannot be written"), ("picture.png/film.mp4", "cannot be written")],
)
def test_an_output_that_cannot_be_written(
    out: str, text: str, tmp_path: Path, film: Film, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "--random-weights", "--image", str(tmp_path / "picture.png")]
    assert main([*command, "--prompt", "a place", "--out", str(tmp_path / out)]) == 2
    assert text in capsys.readouterr().err
