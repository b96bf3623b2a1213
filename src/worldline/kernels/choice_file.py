"""What was measured of attention on this machine, kept in one JSON file of the user's cache.

A cache: unreadable, damaged or unwritable, it costs a second measurement and nothing else. Written
whole into a new file that then takes the old one's place, so that a reader never sees half of it.
Knows no torch.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

VERSION = 1
log = logging.getLogger(__name__)


class AttentionKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a measurement holds for: a device, a torch, and a shape; tokens, heads, values."""

    device: str
    torch: str
    dtype: str
    queries: int
    keys: int
    heads: int
    head_dim: int


class AttentionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The backend taken, the milliseconds of all that were tried, and why some were refused.

    `source` says where the choice comes from: measured now, the file, or the mode.
    """

    key: AttentionKey
    backend: str
    ms: dict[str, float] = {}
    refused: dict[str, str] = {}
    source: str = "measured"


class _Stored(msgspec.Struct, frozen=True):
    version: int
    choices: list[AttentionChoice]


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's caches of Worldline belong; it need not exist."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "worldline"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    given = environ.get(variable, "")
    # The XDG specification has relative paths ignored.
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "worldline"


class ChoiceFile:
    """The stored choices; every call reads the file anew."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "attention.json"

    def read(self) -> list[AttentionChoice]:
        """All stored choices; none where there is no file, or none that can be read."""
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.warning("ignoring %s: %s", self.path, error)
            return []
        return stored.choices if stored.version == VERSION else []

    def find(self, key: AttentionKey) -> AttentionChoice | None:
        """The stored choice for exactly `key`."""
        return next((choice for choice in self.read() if choice.key == key), None)

    def store(self, choice: AttentionChoice) -> None:
        """Add or replace the choice for one key; a file that cannot be written is only logged."""
        others = [old for old in self.read() if old.key != choice.key]
        text = msgspec.json.encode(_Stored(VERSION, [*others, choice]))
        try:
            self._replace(msgspec.json.format(text, indent=1))
        except OSError as error:
            log.warning("the choice of attention is not kept: %s", error)

    def _replace(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
