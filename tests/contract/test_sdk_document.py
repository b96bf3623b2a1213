"""docs/sdk.md names nothing that is not there, and every verb that is."""

from __future__ import annotations

import ast
import re

import pytest

from tests.contract import tree
from worldline import client
from worldline.client.verbs import Verbs

TEXT = (tree.ROOT / "docs/sdk.md").read_text(encoding="utf-8")
CALLS = sorted(set(re.findall(r"\bw\.([a-z_]+)", TEXT)))
VERBS = sorted(name for name in vars(Verbs) if not name.startswith("_"))


@pytest.mark.parametrize("name", CALLS)
def test_what_a_world_can_do_is_there(name: str) -> None:
    assert hasattr(client.World, name)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_told(name: str) -> None:
    assert name in CALLS


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_the_examples_are_python_of_ours(block: str) -> None:
    parsed = ast.parse(
        block.replace("async with", "with").replace("async for", "for").replace("await ", "")
    )
    names = [n for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom) for n in node.names]
    assert all(hasattr(client, alias.name) for alias in names)


def test_both_kinds_of_world_can_do_the_same() -> None:
    blocking = {name for name in dir(client.World) if not name.startswith("_")}
    awaited = {name for name in dir(client.AsyncWorld) if not name.startswith("_")}
    assert blocking - awaited == {"preview"}
    assert awaited <= blocking
