"""What the published browser client understands, and not a bit more: its MessagePack subset (no
negative or 64-bit integers, arrays of at most 15 items, no str32, array16, map32 or extensions) and
its way of reading frames: any map of another type is a header, and the next message its payload.

Written from the facts on the realtime wire, sections 1.2 and 1.9.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple


class CannotDecodeError(Exception):
    """The old client throws here and gives up the session."""


class Message(NamedTuple):
    """One thing the client saw: a map, and the payload if it described frames."""

    fields: dict[str, Any]
    payload: bytes | None = None
    split: bool = False

    @property
    def type(self) -> str:
        """The map's type, with both frame forms under one name."""
        return self.fields["type"].removesuffix("_header")


class OldClient:
    """Feed it binary messages; it yields what the old client would show."""

    def __init__(self) -> None:
        self._header: dict[str, Any] | None = None

    def feed(self, data: bytes) -> Message | None:
        """One binary message; None for the first half of a split batch."""
        if self._header is not None:
            header, self._header = self._header, None
            return _checked(Message(header, data, split=True))
        fields = decode(data)
        if fields["type"] in ("error", "chunk_stats"):
            return Message(fields)
        if fields["type"] == "frame_batch":
            return _checked(Message(fields, fields.pop("payload")))
        self._header = fields
        return None


def _checked(message: Message) -> Message:
    fields, payload = message.fields, message.payload
    assert payload is not None
    assert fields["type"] in ("frame_batch", "frame_batch_header"), fields
    assert fields["total_size"] == len(payload)
    assert message.split == (len(payload) >= 65_536)
    lengths = fields.get("payload_lengths")
    if lengths is not None:
        assert sum(lengths) == len(payload)
        assert len(lengths) == fields["num_frames"]
    return message


def decode(data: bytes) -> dict[str, Any]:
    """One map of the subset, nothing after it. Raises CannotDecodeError."""
    value, end = _value(data, 0)
    if end != len(data) or not isinstance(value, dict):
        raise CannotDecodeError(f"a map and nothing else, got {type(value).__name__}")
    return value


_FIXED = {
    0xCA: (">f", 4),
    0xCB: (">d", 8),
    0xCC: (">B", 1),
    0xCD: (">H", 2),
    0xCE: (">I", 4),
}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def _value(data: bytes, at: int) -> tuple[Any, int]:
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag < 0x90:
        return _map(data, at, tag & 0x0F)
    if tag < 0xA0:
        return _array(data, at, tag & 0x0F)
    if tag < 0xC0:
        return data[at : at + (tag & 0x1F)].decode(), at + (tag & 0x1F)
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag in _FIXED:
        form, size = _FIXED[tag]
        return struct.unpack_from(form, data, at)[0], at + size
    if tag in _SIZED:
        width = _SIZED[tag]
        size = int.from_bytes(data[at : at + width], "big")
        body = data[at + width : at + width + size]
        return (body.decode() if tag >= 0xD9 else body), at + width + size
    if tag == 0xDE:
        return _map(data, at + 2, int.from_bytes(data[at : at + 2], "big"))
    raise CannotDecodeError(f"unsupported byte 0x{tag:02x}")


def _map(data: bytes, at: int, count: int) -> tuple[dict[str, Any], int]:
    result: dict[str, Any] = {}
    for _ in range(count):
        key, at = _value(data, at)
        result[key], at = _value(data, at)
    return result, at


def _array(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    result: list[Any] = []
    for _ in range(count):
        value, at = _value(data, at)
        result.append(value)
    return result, at


def number_types(data: bytes) -> set[str]:
    """Which kinds of numbers a message holds: "int", "float"."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.add(type(value).__name__)

    walk(decode(data))
    return found
