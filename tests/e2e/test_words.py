"""The page has words for every way a world can end, and for everything that is announced."""

from __future__ import annotations

import re
import typing
from pathlib import Path

from worldline.core.errors import error_classes
from worldline.core.live.codes import ByeCode, NoticeCode

WEB = Path(__file__).resolve().parents[2] / "web"
WORDS = (WEB / "src" / "lib" / "words.ts").read_text(encoding="utf-8")
CLIENT_ERRORS = (WEB / "client" / "src" / "errors.ts").read_text(encoding="utf-8")


def known(table: str) -> set[str]:
    """The codes that a table of `words.ts` has."""
    body = WORDS.split(f"export const {table}", 1)[1].split("\n};", 1)[0]
    return set(re.findall(r"^  (\w+):", body, re.MULTILINE))


def client_codes() -> set[str]:
    """The codes of the errors that the client library makes itself."""
    union = CLIENT_ERRORS.split("export type ClientCode =", 1)[1].split(";", 1)[0]
    return set(re.findall(r'"(\w+)"', union))


def test_every_error_and_every_bye_has_words_and_nothing_else_does() -> None:
    assert "connection_lost" in client_codes()
    codes = set(error_classes()) | set(typing.get_args(ByeCode)) | client_codes()
    assert known("WORDS") == codes


def test_every_notice_has_words_or_another_place() -> None:
    assert set(typing.get_args(NoticeCode)) == known("NOTICES")
