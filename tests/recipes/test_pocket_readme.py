"""Every command in the recipe's README is one that its module understands."""

from __future__ import annotations

import ast
import re
import shlex

import pytest

from tests.contract import tree

FOLDER = tree.ROOT / "recipes" / "pocket"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`python -m recipes\.pocket\.(\w+)([^`]*)`", README)


def arguments(module: str) -> dict[str, bool]:
    """The options of a module and whether each is required, read from its source."""
    found: dict[str, bool] = {}
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            (name,) = (a.value for a in node.args if isinstance(a, ast.Constant))
            found[str(name)] = any(k.arg == "required" for k in node.keywords)
    return found


@pytest.mark.parametrize(("module", "rest"), COMMANDS)
def test_a_documented_command_is_understood(module: str, rest: str) -> None:
    known = arguments(module)
    given = {word for word in shlex.split(rest) if word.startswith("--")}
    assert given <= set(known), f"{module} does not know them"
    assert {name for name, required in known.items() if required} <= given, "something is missing"


def test_every_stage_is_documented() -> None:
    stages = {path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text("utf-8")}
    named = {module for module, _ in COMMANDS}
    others = {"preview", "own", "page"}  # told in docs/pocket.md
    assert stages - others <= named
    assert len(COMMANDS) >= 11
