"""World files (`.wl`): a whole walk in kilobytes, from which every picture can be made again.

    8 bytes magic | u16 version | u16 zero | u32 table | u32 picture | SHA-256 | table | picture

Big-endian; the lengths are in bytes, the sum is over all but itself. The table is one MessagePack
map (`WorldFile` without its picture), the picture an encoded file as it came; docs/worldfile.md.
`read_world` trusts nothing: sizes are compared before anything is taken from memory, and runs of
equal controls stay runs until somebody walks them.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Final

import msgspec

from worldline.core.errors import DamagedWorldError, NewerWorldError, WorldFileError
from worldline.core.walk import WorldFile
from worldline.core.walk_checks import check_file

MAGIC: Final = b"\x89WORLD\r\n"
VERSION: Final = 1
SUFFIX: Final = ".wl"
MAX_BYTES: Final = 32 * 2**20
MAX_TABLE: Final = 4 * 2**20  # bytes; unpacked, small values take some twenty times as much

_HEAD: Final = struct.Struct(">8sHHII32s")
_SUMMED: Final = struct.Struct(">8sHHII")


def write_world(file: WorldFile) -> bytes:
    """The file's bytes. Raises `WorldFileError` for what could not be read again."""
    check_file(file)
    picture = file.start.picture
    start = msgspec.structs.replace(file.start, picture=b"")
    try:
        table = msgspec.msgpack.encode(msgspec.structs.replace(file, start=start))
    except OverflowError:
        raise WorldFileError("the seed is too large for a file", got=file.start.seed) from None
    except UnicodeEncodeError as error:
        raise WorldFileError("a prompt is no text", got=error) from None
    _check_size("walk", len(table), MAX_TABLE)
    _check_size("world file", _HEAD.size + len(table) + len(picture), MAX_BYTES)
    sizes = VERSION, 0, len(table), len(picture)
    total = _sum(_SUMMED.pack(MAGIC, *sizes), table, picture)
    return b"".join((_HEAD.pack(MAGIC, *sizes, total), table, picture))


def read_world(data: bytes) -> WorldFile:
    """The file of these bytes, every value checked.

    Raises `DamagedWorldError` for what was cut short, changed, or is no world file,
    `NewerWorldError` for a later version, `WorldFileError` for what is too large or cannot be.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise DamagedWorldError("this is no world file", expected=MAGIC, got=data[: len(MAGIC)])
    _check_size("world file", len(data), MAX_BYTES)
    if len(data) < _HEAD.size:
        raise _cut_short(_HEAD.size, len(data))
    _, version, zero, table, picture, total = _HEAD.unpack_from(data)
    if version > VERSION:
        raise NewerWorldError(
            "the world file is of a later version", expected=f"at most {VERSION}", got=version
        )
    if len(data) != _HEAD.size + table + picture:
        raise _cut_short(_HEAD.size + table + picture, len(data))
    body = memoryview(data)[_HEAD.size :]
    if version == 0 or zero or total != _sum(memoryview(data)[: _SUMMED.size], body):
        raise DamagedWorldError("the world file was changed: its check sum does not fit")
    _check_size("walk", table, MAX_TABLE)
    return _decoded(body[:table], bytes(body[table:]))


def load_world_file(path: Path) -> WorldFile:
    """`read_world` of a file on disk, its size looked at first. Raises `WorldFileError`s."""
    try:
        _check_size("world file", path.stat().st_size, MAX_BYTES)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WorldFileError("the world file cannot be read", got=error) from None
    return read_world(data)


def _decoded(table: memoryview, picture: bytes) -> WorldFile:
    try:
        file = msgspec.msgpack.decode(table, type=WorldFile)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DamagedWorldError("the world file holds something else", got=error) from None
    start = msgspec.structs.replace(file.start, picture=picture)
    file = msgspec.structs.replace(file, start=start)
    check_file(file)
    return file


def _check_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise WorldFileError(f"the {name} is too large", expected=f"at most {most} bytes", got=size)


def _cut_short(wanted: int, size: int) -> DamagedWorldError:
    fault = "is cut short" if size < wanted else "is followed by something else"
    return DamagedWorldError(f"the world file {fault}", expected=f"{wanted} bytes", got=size)


def _sum(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
