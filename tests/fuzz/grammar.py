"""What is sent: messages as the structs say they are, and the many ways in which they are not.

A message is drawn whole, then perhaps broken in its structure (a field lost, of another type, out
of range, unknown, nested), then perhaps in its bytes (cut, flipped, repeated, lying about lengths).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as shapes

Bytes = st.SearchStrategy[bytes]
Field = Mapping[str, st.SearchStrategy[Any]]

EDGES = (0, 1, -1, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-308, 1e308, float("inf"), float("-inf"), float("nan"))
# Headers that promise more than follows: arrays, maps, strings, bytes and extensions of 4 GB.
LIARS = tuple(bytes([tag]) + b"\xff\xff\xff\xff" for tag in (0xDD, 0xDF, 0xDB, 0xC6, 0xC9))
DEEP = (b"\x91" * 5_000, b"\x81\xa1x" * 5_000, b"\x81\xa4type" + b"\x91" * 5_000)
NOT_MAPS = (b"", b"\xc0", b"\xc1", b"\x2a", b"\xa2hi", b"\x90", b"\xd4\x01\x00", b"\xff")

texts = st.text(max_size=20) | st.sampled_from(["", "\0", "🜁" * 50, "x" * 5_000])
simple = (
    st.none()
    | st.booleans()
    | st.sampled_from(EDGES)
    | st.sampled_from(FLOATS)
    | texts
    | st.binary(max_size=20)
)
anything = st.recursive(
    simple,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def of_type(kind: shapes.Type) -> st.SearchStrategy[Any]:
    """Values that a type allows, its edges often among them."""
    match kind:
        case shapes.IntType(ge=low, le=high):
            return st.integers(low, high) | st.sampled_from(
                [v for v in (low, high) if v is not None]
            )
        case shapes.FloatType(ge=low, gt=above, le=high):
            least = low if low is not None else above
            return st.floats(least, high, exclude_min=above is not None, allow_nan=False)
        case shapes.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or 30, 30))
        case shapes.BytesType():
            return st.binary(max_size=200)
        case shapes.BoolType():
            return st.booleans()
        case shapes.NoneType():
            return st.none()
        case shapes.LiteralType(values):
            return st.sampled_from(values)
        case shapes.UnionType(types):
            return st.one_of([of_type(part) for part in types])
        case shapes.VarTupleType(item_type=item, min_length=low, max_length=high):
            return st.lists(
                of_type(item), min_size=low or 0, max_size=min(high or 6, (low or 0) + 6)
            )
        case shapes.TupleType(types):
            return st.tuples(*(of_type(part) for part in types))
        case shapes.ListType(item_type=item):
            return st.lists(of_type(item), max_size=4)
        case shapes.DictType(key_type=key, value_type=value):
            return st.dictionaries(of_type(key), of_type(value), max_size=3)
        case shapes.StructType(cls=cls):
            return message_of(cls, {})
        case _:
            return anything


def message_of(cls: type[msgspec.Struct], known: Field) -> st.SearchStrategy[dict[str, Any]]:
    """Maps that a struct allows; `known` says how the fields of some names are drawn."""
    info = shapes.type_info(cls)
    assert isinstance(info, shapes.StructType), cls
    needed: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    if info.tag is not None:
        needed[str(info.tag_field)] = st.just(info.tag)
    for field in info.fields:
        drawn = known.get(field.encode_name, of_type(field.type))
        (needed if field.required else optional)[field.encode_name] = drawn
    return st.fixed_dictionaries(needed, optional=optional)


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[dict[str, Any]]) -> Any:
    """A message with one thing wrong in its structure."""
    message = dict(draw(whole))
    name = draw(st.sampled_from(sorted(message)))
    match draw(st.integers(0, 5)):
        case 0:
            del message[name]
        case 1:
            message[name] = draw(anything)
        case 2:
            message[draw(st.text(max_size=8))] = draw(anything)
        case 3:
            message["type"] = draw(texts)
        case 4:
            message[name] = [message[name]] * draw(st.sampled_from([1, 3, 600]))
        case _:
            return draw(st.sampled_from([[message], {"message": message}, draw(anything)]))
    return message


@st.composite
def damaged(draw: st.DrawFn, whole: Bytes) -> bytes:
    """Bytes with one thing wrong."""
    data = draw(whole)
    place = draw(st.integers(0, max(0, len(data) - 1)))
    match draw(st.integers(0, 4)):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
        case 2:
            return data + draw(st.binary(min_size=1, max_size=8))
        case 3:
            return data[:place] + draw(st.sampled_from(LIARS)) + data[place:]
        case _:
            return data + data


def pack(message: Any) -> bytes:
    """MessagePack; what msgspec cannot write becomes its text."""
    try:
        return msgspec.msgpack.encode(message)
    except (OverflowError, TypeError, UnicodeEncodeError):
        return msgspec.msgpack.encode(ascii(message))


def twice(message: dict[str, Any]) -> bytes:
    """A map in which every key stands twice; the second time with nothing."""
    body = b"".join(pack(key) + pack(value) for key, value in message.items())
    again = b"".join(pack(key) + b"\xc0" for key in message)
    return b"\xde" + struct.pack(">H", 2 * len(message)) + body + again


def bytes_of(whole: st.SearchStrategy[dict[str, Any]]) -> Bytes:
    """Whole, broken and damaged messages, and what is none; whole ones half of the time."""
    good = whole.map(pack)
    bad: list[Bytes] = [
        broken(whole).map(pack),
        damaged(good),
        whole.map(twice),
        st.binary(max_size=40),
        st.sampled_from((*LIARS, *DEEP, *NOT_MAPS)),
    ]
    return good | st.one_of(bad)
