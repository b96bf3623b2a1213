"""Films of guided models as world files: saved, replayed, exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests import film_worlds, tiny
from worldline.cli.main import main
from worldline.core.walk import DIGEST_BYTES
from worldline.core.worldfile import load_world_file, write_world
from worldline.runtime.engine import World
from worldline.runtime.replaying_films import film_request

pytest.importorskip("diffusers")
Run = Callable[..., dict[str, Any]]
KINDS: dict[str, Callable[[], World]] = {"base": film_worlds.base, "pretrain": film_worlds.pretrain}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small guided world of each kind is what is loaded."""
    world = KINDS[request.param]()
    for module in ("generate", "saved"):
        monkeypatch.setattr(f"worldline.cli.{module}.load_world", lambda *_, **__: world)
    return request.param


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json."""

    def command(*arguments: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) in (0, 1)
        return json.loads(capsys.readouterr().out)

    Image.fromarray(tiny.picture()).save(tmp_path / "picture.png")
    return command


def test_a_film_is_replayed_and_exported(run: Run, kind: str, tmp_path: Path) -> None:
    path, walk = tmp_path / "film.wl", ["--actions", "w-8,wj-8", "--chunk", "3", "--chunks", "2"]
    picture = ["--image", tmp_path / "picture.png", "--prompt", tiny.PROMPT]
    guidance = ["--guidance", "2.5", "--solver", "dpm++", "--negative-prompt", "fog"]
    film = run("generate", *picture, *walk, *guidance, "--out", tmp_path / "a", "--save", path)
    file = load_world_file(path)
    assert (film["world"], file.walk.chunks, file.pictures) == (str(path), 2, film["frames"])
    guided = file.start.guided
    assert guided is not None and guided.overlap == int(kind == "base")
    assert (guided.guidance, guided.solver, guided.negative_prompt) == (2.5, "dpm++", "fog")
    found = run("replay", path, "--out", tmp_path / "b")
    assert (found["identical"], found["compared"], found["remarks"]) == (True, 2, [])
    for name in sorted(one.name for one in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    done = run("export", path, "--out", tmp_path / "data", "--dataset")
    assert done["pictures"] == film["frames"] and done["identical"] is True
    for name in ("poses.npy", "actions.npy"):
        assert len(np.load(tmp_path / "data" / name)) == film["frames"]
    path_asked = film_request(file).path
    assert path_asked is not None
    at, expected = np.eye(4), list[np.ndarray]()
    for relative in path_asked.arrays()[0].astype(np.float64):
        relative[:3, 3] *= file.start.rig.move
        at = at @ relative
        expected.append(at)
    poses = np.load(tmp_path / "data" / "poses.npy")[::4]  # at every latent frame
    np.testing.assert_allclose(poses, expected, atol=1e-5)


def test_a_film_of_one_picture(run: Run, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "film.wl"
    picture = ["--image", tmp_path / "picture.png", "--prompt", tiny.PROMPT]
    run(
        "generate",
        *picture,
        "--chunk",
        "1",
        "--chunks",
        "1",
        "--out",
        tmp_path / "a",
        "--save",
        path,
    )
    assert load_world_file(path).pictures == 1
    assert run("replay", path)["identical"] is True


def test_the_chunk_that_differs_is_named(run: Run, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "film.wl"
    picture = ["--image", tmp_path / "picture.png", "--prompt", tiny.PROMPT]
    run("generate", *picture, "--chunks", "2", "--out", tmp_path / "a", "--save", path)
    file = load_world_file(path)
    digests = file.walk.digests[:DIGEST_BYTES] + b"\1" * DIGEST_BYTES
    walk = msgspec.structs.replace(file.walk, digests=digests)
    path.write_bytes(write_world(msgspec.structs.replace(file, walk=walk)))
    found = run("replay", path)
    assert (found["identical"], found["first_difference"]) == (False, 1)


@pytest.mark.parametrize("changes", [{"solver": "euler"}, {"branches": "apart"}])
def test_ways_of_guidance_that_are_not_known(
    kind: str, run: Run, changes: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "film.wl"
    picture = ["--image", tmp_path / "picture.png", "--prompt", tiny.PROMPT]
    run("generate", *picture, "--chunks", "1", "--out", tmp_path / "a", "--save", path)
    file = load_world_file(path)
    assert file.start.guided is not None
    guided = msgspec.structs.replace(file.start.guided, **changes)
    start = msgspec.structs.replace(file.start, guided=guided)
    path.write_bytes(write_world(msgspec.structs.replace(file, start=start)))
    assert main(["replay", str(path)]) == 2
