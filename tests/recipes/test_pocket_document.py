"""docs/pocket.md says of worlds, words and shards what the code says."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket.encode import WALKS
from recipes.pocket.scenes import scenes
from tests.contract import tree
from worldline.models.pocket.params import POCKET_TEXT

DOCUMENT = (tree.ROOT / "docs" / "pocket.md").read_text(encoding="utf-8")
SMALL_WORDS = {"a", "at", "in", "of", "on", "the", "with"}


def test_every_world_is_named_with_words_it_knows() -> None:
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.count("|") == 4]
    named = {name.strip() for row in rows for name in row[2].split(",")}
    assert {scene.name for scene in scenes()} <= named
    examples = [row[3] for row in rows if row[2].split(",")[0].strip() in _names()]
    words = {word for text in examples for word in re.findall("[a-z]+", text)}
    assert words - SMALL_WORDS <= set(POCKET_TEXT.words)


def test_every_word_is_listed() -> None:
    listed = DOCUMENT.split("<summary>")[1].split("</summary>")[1].split("</details>")[0]
    assert set(re.findall("[a-z]+", listed)) == set(POCKET_TEXT.words)


def test_the_fields_of_a_shard_are_those_that_are_read() -> None:
    fields = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert fields == set(WALKS) | {"scene", "keys"}


def test_modules_that_it_names_exist() -> None:
    for module in re.findall(r"python -m ([\w.]+)", DOCUMENT):
        assert (tree.ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for name in re.findall(r"`(\w+\.py)[ `]", DOCUMENT):
        assert (tree.ROOT / "recipes" / "pocket" / name).is_file(), name


def _names() -> set[str]:
    return {scene.name for scene in scenes()}
