"""Prompt cleaning: repair, unescape twice, collapse whitespace."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from worldline.models.wan.clean import clean_prompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a quiet street", "a quiet street"),
        ("  a \n\n quiet\t street  ", "a quiet street"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("red&nbsp;&nbsp;columns", "red columns"),
        ("　宽\u2003街　", "宽 街"),
        ("", ""),
        (" \n ", ""),
    ],
)
@pytest.mark.parametrize("repair", [True, False])
def test_cleaning(text: str, expected: str, repair: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if repair:
        pytest.importorskip("ftfy", reason="the extra 'models' is not installed")
    else:
        modules: dict[str, Any] = sys.modules
        monkeypatch.setitem(modules, "ftfy", None)
    assert clean_prompt(text) == expected


def test_wrongly_decoded_text_is_repaired() -> None:
    pytest.importorskip("ftfy", reason="the extra 'models' is not installed")
    assert clean_prompt("a cafÃ© at night") == "a café at night"


def test_escapes_are_undone_twice_and_once_more_by_the_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ftfy", reason="the extra 'models' is not installed")
    assert clean_prompt("&amp;amp;amp;") == "&"
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "ftfy", None)
    assert clean_prompt("&amp;amp;amp;") == "&amp;"


def test_cleaning_twice_changes_nothing_more() -> None:
    once = clean_prompt("  wet &amp; windy\n shore ")
    assert clean_prompt(once) == once
