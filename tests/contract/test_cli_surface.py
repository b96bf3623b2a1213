"""Commands and options are a promise: a change of them is a change of the lists here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import tree
from worldline import __version__
from worldline.cli import main as cli

MODEL = {
    "--model",
    "--device",
    "--dtype",
    "--mode",
    "--threads",
    "--camera-cache",
    "--random-weights",
}
SESSION = {"--size", "--chunk", "--window", "--sink", "--shift", "--steps"}
SERVER = {"--host", "--port", "--seats", "--seat-wait", "--init-timeout", "--warmup-wait"}
CAMERA_PATH = {"--actions", "--poses", "--intrinsics"}
SURFACE: dict[str, set[str]] = {
    "play": SERVER | MODEL | {"--no-browser"},
    "serve": SERVER | MODEL,
    "generate": MODEL
    | SESSION
    | CAMERA_PATH
    | {"--image", "--prompt", "--chunks", "--seed", "--out", "--json"},
    "bench chunk": MODEL | SESSION | {"--chunks", "--ablate", "--picture", "--json", "--markdown"},
    "bench soak": MODEL | SESSION | {"--chunks", "--picture", "--json"},
    "bench parity": {"--json"},
    "models": {"--json"},
    "doctor": {"--json"},
}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def shown_help(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", SURFACE)
def test_options_are_exactly_these(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = shown_help(capsys, *command.split())
    options = set(re.findall(r"^[\W_]{1,3}(?:-\w, )?(--[a-z][a-z-]*)", text, re.MULTILINE))
    assert options == SURFACE[command] | {"--help"}


@pytest.mark.parametrize("group", ["", "bench"])
def test_commands_are_exactly_these(capsys: pytest.CaptureFixture[str], group: str) -> None:
    text = shown_help(capsys, *group.split())
    (listed,) = re.findall(r"^usage: .*\{([a-z,]+)\}", text)
    inside = [name.split() for name in SURFACE if name.startswith(group)]
    assert set(listed.split(",")) == {parts[len(group.split())] for parts in inside}


def test_the_command_is_installed_and_tells_its_version() -> None:
    script = Path(sys.executable).parent / "worldline"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"worldline {__version__}\n"


def documented_commands() -> list[str]:
    """Every command line `worldline ...` in a code block of a document."""
    found: list[str] = []
    for path in tree.files():
        if path.suffix != ".md":
            continue
        for block in re.findall(
            r"```[a-z]*\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL
        ):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.strip() for line in lines if re.match(r"\s*worldline [a-z]", line)]
    return sorted(set(found))


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    assert type(cli.parse(arguments)) in cli.RUNNERS
