"""Adapters by name: how they are named on a command line and in a request. No files, no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from worldline.core.errors import ConfigError

Outfit = tuple[tuple[str, float], ...]
MOST_SCALE = 100.0


def parse_spec(text: str) -> tuple[str, Path, float]:
    """Name, file and scale of `[NAME=]FILE[@SCALE]`. Raises: ConfigError."""
    name, equals, rest = text.partition("=")
    path, at, scale = (rest if equals else text).rpartition("@")
    if not at:
        path, scale = scale, "1"
    try:
        number = float(scale)
    except ValueError:
        raise ConfigError("unusable scale of a LoRA", expected="a number", got=scale) from None
    if not path or (equals and not name):
        raise ConfigError("no LoRA", expected="[NAME=]FILE[@SCALE]", got=text)
    return (name if equals else Path(path).stem), Path(path), number


def parse_outfit(text: str) -> Outfit:
    """Names and scales of `NAME[:SCALE],...`; nothing of an empty text. Raises: ConfigError."""
    found: list[tuple[str, float]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, scale = part.partition(":")
        try:
            found.append((name, float(scale) if colon else 1.0))
        except ValueError:
            raise ConfigError("unusable LoRA", expected="NAME[:SCALE]", got=part[:80]) from None
    return tuple(found)


def check_outfit(outfit: Outfit, known: Sequence[str]) -> Outfit:
    """The outfit without what has no effect. Raises: ConfigError for one that cannot be."""
    names = [name for name, _ in outfit]
    for name, scale in outfit:
        if name not in known:
            listed = ", ".join(known) or "none is loaded"
            raise ConfigError("no such LoRA", expected=listed, got=name[:80])
        if not -MOST_SCALE <= scale <= MOST_SCALE or not math.isfinite(scale):
            expected = f"-{MOST_SCALE:g} to {MOST_SCALE:g}"
            raise ConfigError("unusable scale of a LoRA", expected=expected, got=scale)
    if len(set(names)) < len(names):
        raise ConfigError("a LoRA twice", expected="each name once", got=", ".join(names))
    return tuple((name, float(scale)) for name, scale in outfit if scale)
