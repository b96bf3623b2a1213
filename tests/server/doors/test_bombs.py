"""Small things that would become large: each is refused before it does."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.doors.knocking import Knock, behind
from worldline.core.errors import ImageError, ProtocolError
from worldline.core.events import decode_message
from worldline.core.live import ClientMessage
from worldline.media.image import decode_image
from worldline.server.doors.bounded import UNREADABLE
from worldline.server.doors.scan import MAX_ITEMS, has_too_many

MIB = 2**20
WIRE = msgspec.msgpack.Decoder(ClientMessage)
FLAT = zlib.compress(bytes(64 * MIB), 9)
LENGTHS = {
    "array": b"\xdd\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "nested": b"\x91" * MIB,
    "nested maps": b"\x81\xa1a" * 300_000,
}
FIELDS = [
    ("init", "condition_inputs"),
    ("init", "first_frame"),
    ("event", "payload"),
    ("enter", "image"),
    ("script", "frames"),
    ("camera", "poses"),
    ("hello", "formats"),
    ("hello", "unknown"),
]


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes Python's allocators held during `call`, which may raise what it likes."""
    tracemalloc.start()
    try:
        with pytest.raises((ProtocolError, ImageError, msgspec.DecodeError, RecursionError)):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", LENGTHS)
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: ".".join(field))
def test_a_length_that_lies_allocates_nothing(field: tuple[str, str], bomb: str) -> None:
    kind, name = field
    head = b"\x82\xa4type" + msgspec.msgpack.encode(kind) + msgspec.msgpack.encode(name)
    data = head + LENGTHS[bomb]
    assert peak_of(lambda: decode_message(data)) < MIB
    assert peak_of(lambda: WIRE.decode(data)) < MIB


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*extra: bytes, size: tuple[int, int] = (16, 16), data: bytes = FLAT) -> bytes:
    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), *extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SMALL = zlib.compress(bytes(900_000), 9)
PICTURES = {
    "size": png(size=(60_000, 60_000)),
    "text": png(chunk(b"zTXt", b"a\0\0" + FLAT)),
    "international text": png(chunk(b"iTXt", b"a\0\1\0\0\0" + FLAT)),
    "profile": png(chunk(b"iCCP", b"a\0\0" + FLAT)),
    "many texts": png(*[chunk(b"zTXt", b"a\0\0" + SMALL)] * 100),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + bytes(40),
    "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10)
    + bytes(4) + b"\xff\xff\xff" * 2,
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_would_explode_is_refused(name: str) -> None:
    assert peak_of(lambda: decode_image(PICTURES[name])) < 8 * MIB


def test_pixels_beyond_the_size_are_never_unpacked() -> None:
    tracemalloc.start()
    try:
        assert decode_image(png()).shape == (16, 16, 3)  # 64 MiB of rows, 16 of which there are
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=8),
    max_leaves=60,
)  # fmt: skip


def items(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(items, value))
    if isinstance(value, dict):
        return 1 + sum(1 + items(inner) for inner in value.values())
    return 1


@given(NESTED)
def test_items_are_counted_as_they_are(value: object) -> None:
    data = msgspec.msgpack.encode(value)
    count = items(value)
    assert not has_too_many(data, count)
    assert has_too_many(data, count - 1) == (count - 1 < len(data))


@given(st.binary(max_size=3000))
def test_any_bytes_can_be_counted(data: bytes) -> None:
    has_too_many(data, 10)


@pytest.mark.anyio
async def test_very_many_items_are_one_unreadable_message() -> None:
    house = behind()
    knock = Knock(house, headers={"host": "127.0.0.1:30000"})
    await knock.next()
    bomb = b"\x82\xa4type\xa4init\xb0condition_inputs\x81\xa1a\xdd\x00\x80\x00\x00"
    bomb += b"\x90" * (8 * MIB)
    large = msgspec.msgpack.encode({"type": "enter", "image": bytes(8 * MIB)})
    for message in (bomb, large):
        knock.send(message)
        await knock.message()
    assert house.heard == [UNREADABLE, large]
    assert has_too_many(b"\x90" * (MAX_ITEMS + 1))
    await knock.leave()
