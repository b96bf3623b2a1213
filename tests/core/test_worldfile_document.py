"""docs/worldfile.md says what the code does."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import msgspec
import pytest

from tests import worlds
from worldline.core import walk, walk_checks, worldfile
from worldline.core.errors import WorldFileError
from worldline.core.walk import COMPARED, MadeWith, Walk, WorldStart

PAGE = Path(__file__).parents[2] / "docs" / "worldfile.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("part", [WorldStart, MadeWith, Walk])
def test_every_field(part: type[msgspec.Struct]) -> None:
    wanted = set(part.__struct_fields__) - {"picture"}  # which follows the table
    assert {name for name in wanted if f"`{name}`" not in TEXT} == set()
    data = worlds.walked().encode()
    length = struct.unpack_from(">I", data, 12)[0]
    table = msgspec.msgpack.decode(data[52 : 52 + length])
    names = {WorldStart: "start", MadeWith: "made", Walk: "walk"}
    assert set(table[names[part]]) - {"picture"} == wanted


def test_every_code() -> None:
    kinds = [WorldFileError, *WorldFileError.__subclasses__()]
    section = TEXT.partition("## What cannot be")[2]
    assert all(f"`{kind.code}`" in section for kind in kinds)


def test_limits_and_numbers() -> None:
    assert worldfile.MAX_BYTES == 32 * 2**20 and "32 MiB in all" in TEXT
    assert worldfile.MAX_TABLE == 4 * 2**20 and "4 MiB of table" in TEXT
    assert f"{walk_checks.MAX_FRAMES:,} latent" in TEXT
    assert worldfile.MAGIC.hex(" ").upper() in TEXT
    assert f"| version: {worldfile.VERSION} |" in TEXT
    assert walk.DIGEST_BYTES == walk.POSE_NUMBERS == 16
    assert all(name in TEXT for name in COMPARED)


def test_the_head_without_anything_of_ours() -> None:
    """The places that the page's last example reads."""
    data = worlds.walked().encode()
    table, picture = struct.unpack_from(">II", data, 12)
    assert len(data) == 52 + table + picture
    assert data[52 + table :] == worlds.PICTURE
    assert 'struct.unpack_from(">II", data, 12)' in TEXT and "data[52 : 52 + table]" in TEXT


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_examples_are_python(block: str) -> None:
    ast.parse(block)
