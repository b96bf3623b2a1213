"""Prompt cleaning as the text encoder was trained with: repair, unescape, collapse whitespace."""

from __future__ import annotations

import html
import importlib.util
import re

_WHITESPACE = re.compile(r"\s+")


def clean_prompt(text: str) -> str:
    """Repair mis-decoded text, undo HTML escapes (twice) and collapse whitespace to single spaces.

    The repair needs ftfy (extra `models`); without it that step is skipped, which changes nothing
    for text that was decoded correctly.
    """
    text = html.unescape(html.unescape(_repair(text)))
    return _WHITESPACE.sub(" ", text).strip()


def _repair(text: str) -> str:
    if importlib.util.find_spec("ftfy") is None:
        return text
    import ftfy

    return ftfy.fix_text(text)
