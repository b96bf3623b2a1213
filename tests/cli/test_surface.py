"""The command line is frozen: a flag or default that changes must change `surface.txt` too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.surface import COMMANDS, flag, options_of, surface
from worldline import __version__
from worldline.cli.main import RUNNERS, main

FROZEN = Path(__file__).with_name("surface.txt")


def test_options_are_those_written_down() -> None:
    """To accept a change: `python -m tests.cli.test_surface`, and a line in the changelog."""
    assert surface() == FROZEN.read_text()


def test_every_command_has_a_runner() -> None:
    assert set(RUNNERS) == set(COMMANDS.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name, _ in options_of(COMMANDS[command]):
        assert re.search(rf"(?<![\w-]){flag(name)}(?![\w-])", text), f"{name} is not in the help"


def test_top_level_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(command.split()[0] in text for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"worldline {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from worldline.cli.main import main\n"
        "try: main(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'starlette', 'uvicorn', 'av', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_serving_process_never_imports_torch() -> None:
    code = (
        "import sys, worldline.cli.serve, worldline.server.app, worldline.server.serve\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["serve", "--prot", "3"], ["serve", "--port", "x"], ["generate"]]
)
def test_a_command_line_that_cannot_be_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


if __name__ == "__main__":
    FROZEN.write_text(surface())
