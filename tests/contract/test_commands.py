"""The command is installed, and every command line in a document is one it understands.

The options themselves are frozen in `tests/cli/surface.txt`.
"""

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

FENCED = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\s*(worldline [a-z].*)$", re.MULTILINE)
INDENTED = re.compile(r"^ {4}(worldline [a-z].*)$", re.MULTILINE)


def documented_commands() -> list[str]:
    """Every line `worldline ...` in a code block of a document, continued lines joined."""
    found: set[str] = set()
    for path in tree.files():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8").replace("\\\n", " ")
            for block in FENCED.findall(text):
                found |= set(COMMAND.findall(block))
            found |= set(INDENTED.findall(text))
    return sorted(found)


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    assert type(cli.parse(arguments)) in cli.RUNNERS


def test_the_readme_names_commands() -> None:
    named = {line.split()[1] for line in documented_commands()}
    assert {"play", "generate", "bench", "serve"} <= named


def test_the_command_is_installed_and_tells_its_version() -> None:
    script = Path(sys.executable).parent / "worldline"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"worldline {__version__}\n"
