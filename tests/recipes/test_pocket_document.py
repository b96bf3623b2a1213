"""docs/pocket.md says of worlds, words and shards what the code says."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket.encode import WALKS
from recipes.pocket.gallery import known_scenes, packed_words
from recipes.pocket.scenes import scenes
from tests.contract import tree
from worldline.models.pocket.params import POCKET_TEXT

DOCUMENT = (tree.ROOT / "docs" / "pocket.md").read_text(encoding="utf-8")
SMALL_WORDS = {"a", "at", "in", "of", "on", "the", "with"}
COMING = " (in training)"


def test_every_world_is_named_with_words_it_knows() -> None:
    names = {scene.name for scene in scenes()}
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.count("|") == 4]
    worlds = [row for row in rows if row[2].split(",")[0].strip().removesuffix(COMING) in names]
    named = {name.strip() for row in worlds for name in row[2].split(",")}
    assert {name.removesuffix(COMING) for name in named} == names
    known = {name for name in named if not name.endswith(COMING)}
    assert known == {scene.name for scene in known_scenes()}, "the weights know others"
    words = {word for row in worlds for word in re.findall("[a-z]+", row[3])}
    assert words - SMALL_WORDS <= set(POCKET_TEXT.words)


def test_every_word_is_listed() -> None:
    listed = DOCUMENT.split("<summary>")[1].split("</summary>")[1].split("</details>")[0]
    assert set(re.findall("[a-z]+", listed)) == packed_words()


def test_the_fields_of_a_shard_are_those_that_are_read() -> None:
    fields = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert fields == set(WALKS) | {"scene", "keys"}


def test_modules_that_it_names_exist() -> None:
    for module in re.findall(r"python -m ([\w.]+)", DOCUMENT):
        assert (tree.ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for name in re.findall(r"`(\w+\.py)[ `]", DOCUMENT):
        assert (tree.ROOT / "recipes" / "pocket" / name).is_file(), name
