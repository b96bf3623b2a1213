"""`export`: a stretch of a walk as a film with its camera, or as training data."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from worldline.cli.export import meta_of, stretch_of
from worldline.cli.loading import load_world
from worldline.cli.main import main
from worldline.core.errors import ConfigError
from worldline.core.motion import Motion
from worldline.core.walk import PromptAt, Stepped
from worldline.core.walked import Walked
from worldline.core.worldfile import load_world_file, write_world

Export = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Generator[None]:
    """Equal settings give one loaded world: walks do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(load_world)
        for module in ("generate", "saved"):
            patch.setattr(f"worldline.cli.{module}.load_world", load)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A walk of six chunks (21 pictures): ahead, then to the left, without sums."""
    folder = tmp_path_factory.mktemp("walk")
    picture = folder / "picture.png"
    Image.fromarray(np.full((48, 80, 3), 99, dtype=np.uint8)).save(picture)
    path = folder / "walk.wl"
    command = ["generate", "--random-weights", "--image", picture, "--prompt", "a place"]
    command += ["--chunks", "1", "--out", folder / "film", "--save", path]
    assert main([str(argument) for argument in command]) == 0
    file = load_world_file(path)
    walked = Walked(file.start, file.made)
    for chunk in range(6):
        motion = Motion(z=1.0) if chunk < 3 else Motion(yaw=-0.5)
        prompt = "rain" if chunk == 4 else None
        walked.add(Stepped(motions=(motion,) * file.start.chunk, prompt=prompt))
    path.write_bytes(walked.encode())
    return path


@pytest.fixture
def export(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Export:
    """Export from the walk; returns the command's JSON."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        command = ["export", str(world), "--out", str(tmp_path / name), "--json", *arguments]
        assert main(command) == 0
        return json.loads(capsys.readouterr().out)

    return run


def pictures(folder: Path) -> list[bytes]:
    files = sorted((folder / "frames").iterdir())
    return [Image.open(file).tobytes() for file in files]


def test_a_dataset_and_a_stretch_of_it(export: Export, tmp_path: Path) -> None:
    whole = export("whole", "--dataset")
    assert (whole["pictures"], whole["identical"]) == (21, None)
    part = export("part", "--dataset", "--from", "0.5", "--to", "1")
    assert (part["first"], part["pictures"], part["seconds"]) == (8, 8, 0.5)
    assert pictures(tmp_path / "part") == pictures(tmp_path / "whole")[8:16]
    for name in ("poses.npy", "actions.npy", "intrinsics.npy"):
        all_rows, rows = (np.load(tmp_path / which / name) for which in ("whole", "part"))
        assert len(all_rows) == 21
        assert np.array_equal(rows, all_rows[8:16])
    actions = np.load(tmp_path / "whole" / "actions.npy")
    assert actions[0].tolist() == [0, 0, 0, 0]
    assert actions[1:9].tolist() == [[0, 1, 0, 0]] * 8
    assert actions[9:].tolist() == [[0, 0, -0.5, 0]] * 12
    poses = np.load(tmp_path / "whole" / "poses.npy")
    assert np.array_equal(poses[0], np.eye(4)) and poses[8, 2, 3] == pytest.approx(0.1)


def test_what_a_dataset_says_of_itself(export: Export, tmp_path: Path) -> None:
    export("part", "--dataset", "--from", "0.75")
    meta = json.loads((tmp_path / "part" / "meta.json").read_text())
    assert meta["actions"] == ["x", "z", "yaw", "pitch"]
    assert (meta["pictures"], meta["first_picture"], meta["fps"]) == (9, 12, 16)
    assert meta["prompts"] == [
        {"picture": 0, "text": "a place", "blend_chunks": 0},
        {"picture": 1, "text": "rain", "blend_chunks": 0},
    ]
    found = json.loads((tmp_path / "part" / "transforms.json").read_text())
    assert len(found["frames"]) == 9
    assert (tmp_path / "part" / found["frames"][8]["file_path"]).is_file()


def test_words_in_force_at_the_beginning(world: Path) -> None:
    file = load_world_file(world)
    prompts = (PromptAt(0, "first"), PromptAt(1, "second"), PromptAt(5, "last", 2))
    file = msgspec.structs.replace(file, walk=msgspec.structs.replace(file.walk, prompts=prompts))
    write_world(file)

    def said(since: float, until: float | None) -> list[tuple[int, str]]:
        meta = meta_of(file, stretch_of(file, since, until))
        return [(prompt["picture"], prompt["text"]) for prompt in meta["prompts"]]

    assert said(0, None) == [(0, "first"), (1, "second"), (17, "last")]
    assert said(0.5, 1.0) == [(0, "second")]


def test_a_film_with_its_camera(export: Export, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    found = export("cut", "--to", "0.6")
    folder = tmp_path / "cut"
    assert sorted(path.name for path in folder.iterdir()) == [
        "intrinsics.npy",
        "poses.npy",
        "transforms.json",
        "world.mp4",
    ]
    with av.open(str(folder / "world.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == found["pictures"] == 10
    assert np.load(folder / "poses.npy").shape == (10, 4, 4)


@pytest.mark.parametrize(
    ("since", "until"),
    [(-1.0, None), (2.0, None), (1.0, 1.0), (1.0, 0.5), (float("nan"), None), (0.51, 0.52)],
)
def test_stretches_that_are_none(world: Path, since: float, until: float | None) -> None:
    with pytest.raises(ConfigError, match=r"seconds from 0 to 1\.31"):
        stretch_of(load_world_file(world), since, until)


def test_nothing_is_written_over(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (world.parent, world, world / "inside"):
        assert main(["export", str(world), "--out", str(out)]) == 2
        assert "error [invalid_config]: the " in capsys.readouterr().err
