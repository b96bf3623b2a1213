"""What a user gets wrong costs them one clear line and exit code 2, before any model is loaded."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldline.cli import main as cli
from worldline.cli.main import main
from worldline.core.errors import GenerationError

Run = Callable[..., str]


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command line that must be refused; returns its one line of error."""

    def run(*arguments: str | Path) -> str:
        def no_load(*args: object, **kwargs: object) -> None:
            raise AssertionError("a model was loaded before the input was checked")

        monkeypatch.setattr("worldline.cli.generate.load_world", no_load)
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error [")
        return lines[0]

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A start picture."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((48, 80, 3), 90, dtype=np.uint8)).save(path)
    return path


def png_of(width: int, height: int) -> bytes:
    """A picture that is small as a file, whatever its size."""
    data = io.BytesIO()
    Image.new("1", (width, height)).save(data, "PNG")
    return data.getvalue()


def torn_png() -> bytes:
    """The first half of a noisy picture."""
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()[: data.tell() // 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the picture is empty"),
        (b"just text", "no known format"),
        (png_of(10_000, 10_000), "too large"),
        (torn_png(), "broken"),
    ],
    ids=["empty", "text", "100 megapixels", "torn"],
)
def test_unusable_pictures(refused: Run, tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "p").write_bytes(data)
    line = refused("generate", "--image", tmp_path / "p", "--prompt", "a place")
    assert line.startswith("error [invalid_image]")
    assert text in line


def test_missing_picture(refused: Run, tmp_path: Path) -> None:
    line = refused("generate", "--image", tmp_path / "none.png", "--prompt", "a place")
    assert "cannot be read" in line and "No such file" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--actions", "x-20"], "[invalid_control]: unknown action"),
        (["--actions", "w20"], "[invalid_control]: malformed action string"),
        (["--chunks", "0"], "[invalid_config]: nothing to generate"),
        (["--poses", "p.npy"], "[invalid_config]: --poses and --intrinsics go together"),
        (["--actions", "w-4", "--poses", "p.npy"], "[invalid_config]: two camera paths"),
        (["--poses", "p.npy", "--intrinsics", "i.npy"], "[invalid_control]: cannot read"),
        (["--size", "large"], "[invalid_config]: the size cannot be read"),
    ],
)
def test_unusable_options(refused: Run, picture: Path, arguments: list[str], text: str) -> None:
    line = refused("generate", "--image", picture, "--prompt", "a place", *arguments)
    assert text in line


@pytest.mark.parametrize("shape", [(5, 3, 4), (4, 4), (0, 4, 4)])
def test_wrong_shaped_poses(
    refused: Run, picture: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "poses.npy", np.zeros(shape))
    np.save(tmp_path / "intrinsics.npy", np.ones((5, 4)))
    files = ["--poses", tmp_path / "poses.npy", "--intrinsics", tmp_path / "intrinsics.npy"]
    line = refused("generate", "--image", picture, "--prompt", "a place", *files)
    assert "poses have the wrong shape" in line and str(shape) in line


def test_a_port_that_is_taken(refused: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused("serve", "--port", str(taken.getsockname()[1]))
    assert "cannot listen on 127.0.0.1 port" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serve", "--seats", "0"], "nobody could enter"),
        (["serve", "--port", "70000"], "no such port"),
        (["bench", "chunk", "--chunks", "0"], "nothing to measure"),
        (["bench", "chunk", "--size", "10"], "the size cannot be read"),
    ],
)
def test_unusable_numbers(refused: Run, arguments: list[str], text: str) -> None:
    assert text in refused(*arguments)


def test_an_unreadable_variable(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDLINE_THREADS", "many")
    line = refused("doctor")
    assert "WORLDLINE_THREADS" in line and "int" in line


def test_errors_of_ours_also_end_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: object) -> int:
        raise GenerationError("it broke\nin two lines")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "error [generation_error]: it broke in two lines\n"


def test_ctrl_c_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", "")
