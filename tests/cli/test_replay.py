"""`generate --save` and `replay`: the same bits again, or the chunk where they part."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests import worlds
from worldline.cli.loading import load_world
from worldline.cli.main import main
from worldline.core.motion import Motion
from worldline.core.walk import DIGEST_BYTES, Stepped, WorldFile, frames_digest, pose_rows
from worldline.core.walked import Walked
from worldline.core.worldfile import load_world_file, write_world
from worldline.media.image import decode_image
from worldline.runtime.engine import load
from worldline.runtime.replaying import again, open_again

Command = Callable[..., tuple[int, str, str]]
Save = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Generator[None]:
    """Equal settings give one loaded world: walks do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(load_world)
        for module in ("generate", "saved"):
            patch.setattr(f"worldline.cli.{module}.load_world", load)
        yield


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; returns exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def make(folder: Path, *arguments: str) -> Path:
    """Make a film with random weights and save it; returns the world file."""
    picture = folder / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    path = folder / "walk.wl"
    command = ["generate", "--random-weights", "--image", picture, "--prompt", "a place"]
    command += ["--out", folder / "film", "--save", path, *arguments]
    assert main([str(argument) for argument in command]) == 0
    return path


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """A film of four chunks that stands still."""
    return Walked.of(load_world_file(make(tmp_path_factory.mktemp("walk"), "--chunks", "4")))


@pytest.fixture
def save(tmp_path: Path, walk: Walked) -> Save:
    """The first chunks of that film as a world file."""

    def run(chunks: int) -> Path:
        path = tmp_path / "walk.wl"
        path.write_bytes(walk.branch(chunks).encode())
        return path

    return run


def replay(command: Command, path: Path, *arguments: str | Path) -> dict[str, Any]:
    _, out, _ = command("replay", path, "--json", *arguments)
    return json.loads(out)


def changed(path: Path, **changes: object) -> Path:
    """The same file with other facts about what made it."""
    file = load_world_file(path)
    made = msgspec.structs.replace(file.made, **changes)
    path.write_bytes(write_world(msgspec.structs.replace(file, made=made)))
    return path


def test_a_film_and_its_replay_are_the_same_pictures(command: Command, tmp_path: Path) -> None:
    path = make(
        tmp_path, "--actions", "w-8,wl-8", "--size", "96x80", "--window", "9", "--shift", "4.5"
    )
    found = replay(command, path, "--out", tmp_path / "again")
    assert (found["identical"], found["first_difference"], found["remarks"]) == (True, None, [])
    assert found["compared"] == found["chunks"] == 5
    files = sorted((tmp_path / "film").iterdir())
    assert len(files) == found["frames"] == 17
    for file in files:
        with Image.open(file) as then, Image.open(tmp_path / "again" / file.name) as now:
            assert then.tobytes() == now.tobytes()


def test_in_a_new_process(save: Save) -> None:
    script = "import sys; from worldline.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "replay", str(save(2))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("identical: 2 chunks, 5 frames")


def test_the_first_chunk_that_differs_is_named(save: Save, command: Command) -> None:
    path = save(4)
    file = load_world_file(path)
    digests = bytearray(file.walk.digests)
    digests[2 * DIGEST_BYTES] ^= 1
    walk = msgspec.structs.replace(file.walk, digests=bytes(digests))
    path.write_bytes(write_world(msgspec.structs.replace(file, walk=walk)))
    code, out, _ = command("replay", path)
    assert code == 1 and out.startswith("chunk 2 of 4 is the first that differs")
    found = replay(command, path)
    assert (found["identical"], found["first_difference"], found["compared"]) == (False, 2, 3)


def test_other_motions_give_other_pictures(save: Save, command: Command) -> None:
    file = load_world_file(save(3))
    walked = Walked(file.start, file.made, list(file.chunks())[:2])
    digest = list(file.chunks())[2].digest
    walked.add(Stepped(motions=(Motion(z=1.0),) * file.start.chunk, digest=digest))
    path = Path(file.start.prompt.replace(" ", "_"))
    found = replay(command, written(walked.file(), path))
    assert (found["identical"], found["first_difference"]) == (False, 2)


def written(file: WorldFile, path: Path) -> Path:
    path.write_bytes(write_world(file))
    return path


def test_prompts_steps_and_every_kind_of_control(save: Save, command: Command) -> None:
    """Only the record changes hands: what the engine made of it once, it makes again."""
    file = load_world_file(save(1))
    chunk = file.start.chunk
    turned = pose_rows([worlds.turned(5.0)] * chunk, [[1, 0, 0, 0]] * chunk)
    asked = [
        *file.chunks(),
        Stepped(poses=turned),
        Stepped(motions=(Motion(z=0.3, yaw=-0.7),) * chunk, prompt="rain", blend_chunks=2),
        Stepped(actions=(("w", "s", "l"),) * chunk, steps=1),
        Stepped(motions=(Motion(x=-0.0),) * chunk, prompt="snow"),
    ]
    world = load("pocket", random_weights=True)
    walked = Walked(file.start, file.made)
    with open_again(world, file.start, decode_image(file.start.picture)) as session:
        for step in asked:
            made = again(session, step)
            walked.add(step._replace(digest=frames_digest(made.frames)))
    path = Path("every_kind.wl")
    found = replay(command, written(walked.file(), path))
    assert (found["identical"], found["compared"]) == (True, 5)


def test_what_is_other_is_said_before_it_starts(save: Save, command: Command) -> None:
    path = changed(save(1), torch="1.0", machine="an abacus")
    code, out, told = command("replay", path)
    assert code == 0 and out.startswith("identical")
    assert "note: torch was 1.0, here " in told and "note: machine was an abacus, here " in told


def test_other_weights_are_refused(save: Save, command: Command) -> None:
    path = changed(save(2), weights="random-1")
    code, out, told = command("replay", path)
    assert (code, out) == (2, "")
    assert told.startswith("error [world_weights]: ") and "random-0 of pocket" in told
    found = replay(command, path, "--force")
    assert found["identical"] is True
    assert found["remarks"] == ["weights was random-1, here random-0"]


def test_a_mode_that_promises_nothing_fails_at_nothing(save: Save, command: Command) -> None:
    path = changed(save(2), mode="fast")
    file = load_world_file(path)
    walk = msgspec.structs.replace(file.walk, digests=b"\1" * 2 * DIGEST_BYTES)
    written(msgspec.structs.replace(file, walk=walk), path)
    code, out, told = command("replay", path)
    assert code == 0 and out.startswith("chunk 0 of 2 is the first that differs: 5 frames")
    assert "note: fast mode promises no bits" in told


def test_nothing_to_compare_with(save: Save, command: Command) -> None:
    path = save(2)
    file = load_world_file(path)
    walk = msgspec.structs.replace(file.walk, digests=b"")
    written(msgspec.structs.replace(file, walk=walk), path)
    code, out, _ = command("replay", path)
    assert code == 0 and out.startswith("replayed, nothing to compare with: 5 frames")
    walk = msgspec.structs.replace(file.walk, digests=bytes(16) + file.walk.digests[16:])
    written(msgspec.structs.replace(file, walk=walk), path)
    code, out, _ = command("replay", path)
    assert code == 0 and out.startswith("identical: 1 chunks and 1 that nobody took a sum of, 5 ")


def test_another_picture_is_told(save: Save, command: Command) -> None:
    path = save(1)
    file = load_world_file(path)
    start = msgspec.structs.replace(file.start, pixels=bytes(16))
    written(msgspec.structs.replace(file, start=start), path)
    assert "the start picture decodes to other pixels here" in command("replay", path)[2]


def test_files_that_cannot_be_replayed(save: Save, command: Command, tmp_path: Path) -> None:
    path = save(1)
    data = path.read_bytes()
    bad = tmp_path / "bad.wl"
    for code, content in (
        ("world_damaged", data[:-1]),
        ("world_damaged", data[:-1] + bytes([data[-1] ^ 1])),
        ("world_damaged", b"a film"),
        ("world_version", data[:8] + b"\0\2" + data[10:]),
    ):
        bad.write_bytes(content)
        exit_code, out, told = command("replay", bad)
        assert (exit_code, out) == (2, "") and told.startswith(f"error [{code}]: ")
    elsewhere = changed(path, model="somebody/weights")
    exit_code, _, told = command("replay", elsewhere)
    assert exit_code == 2 and "no preset; expected --model; got somebody/weights" in told
    exit_code, _, told = command("replay", tmp_path / "nowhere.wl")
    assert exit_code == 2 and told.startswith("error [invalid_world]: ")
    decoder = changed(path, model="pocket", options={"decoder": "mine.safetensors"})
    exit_code, _, told = command("replay", decoder)
    assert exit_code == 2 and "--decoder mine.safetensors" in told


def test_a_world_file_that_cannot_be_written_is_told_first(
    command: Command, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (80, 48)).save(picture)
    code, _, told = command(
        *("generate", "--random-weights", "--image", picture, "--prompt", "x"),
        *("--out", tmp_path / "other", "--save", picture / "inside.wl"),
    )
    assert code == 2 and told.startswith("error [invalid_world]: the world file cannot be written")
    assert not (tmp_path / "other").exists()


def test_a_file_that_is_there_stays_until_there_is_a_chunk(
    save: Save, command: Command, tmp_path: Path
) -> None:
    path = save(2)
    before, picture = path.read_bytes(), tmp_path / "picture.png"
    Image.new("RGB", (80, 48)).save(picture)
    film = ("generate", "--random-weights", "--image", picture, "--prompt", "x")
    for out, where in (
        ("film.avi", path),
        (path, path),
        ("other", "other/walk.wl"),
        ("other", "other.part/walk.wl"),
        ("other", "."),
        ("other", tmp_path),
    ):
        code, _, told = command(*film, "--out", out, "--save", where)
        assert code == 2 and told.startswith("error [")
        assert path.read_bytes() == before and not Path("other").exists()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
