"""NAL units of an H.264 stream in Annex B, and what its sequence parameter set says.

Read only as far as a player must know: profile and level (the codec string of RFC 6381), size, and
how colours are to be read (ITU-T H.264, 7.3.2.1.1 and E.1.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from worldline.core.errors import ShapeError

IDR: Final = 5
SPS: Final = 7
PPS: Final = 8
UNSPECIFIED: Final = 2  # matrix, primaries, transfer that are not signalled
_START: Final = re.compile(rb"\x00\x00\x01")
_HIGH_PROFILES: Final = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


class Sps(NamedTuple):
    """A sequence parameter set. `codec` is `avc1.PPCCLL`; sizes are pixels after cropping."""

    codec: str
    width: int
    height: int
    full_range: bool
    primaries: int
    transfer: int
    matrix: int


def nal_units(data: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B stream, without start codes."""
    starts = [match.end() for match in _START.finditer(data)]
    for start, after in zip(starts, [*starts[1:], len(data) + 3], strict=True):
        end = after - 3
        unit = data[start:end].rstrip(b"\x00") if end < len(data) else data[start:]
        if unit:
            yield unit


def nal_type(unit: bytes) -> int:
    """The type of a NAL unit: `IDR`, `SPS`, `PPS` or another."""
    return unit[0] & 31


def parse_sps(unit: bytes) -> Sps:
    """Read a NAL unit of type `SPS`.

    Raises: ShapeError when it is none, ends too early, or counts beyond reason.
    """
    if len(unit) < 5 or nal_type(unit) != SPS:
        raise ShapeError("not a sequence parameter set", got=unit[:8].hex(" "))
    codec = "avc1." + unit[1:4].hex().upper()
    bits = _Bits(unit[4:].replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        return _parse(codec, unit[1], bits)
    except IndexError:
        raise ShapeError("the sequence parameter set ends too early", got=unit.hex(" ")) from None


class _Bits:
    """Reads bits, most significant first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._at // 8]
            value = value << 1 | (byte >> (7 - self._at % 8)) & 1
            self._at += 1
        return value

    def unsigned(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        value = self.unsigned()
        return (value + 1) // 2 if value % 2 else -(value // 2)


def _parse(codec: str, profile: int, bits: _Bits) -> Sps:
    bits.unsigned()  # id
    chroma = _skip_high(bits) if profile in _HIGH_PROFILES else 1
    bits.unsigned()  # log2 of the largest frame number
    _skip_order(bits)
    bits.unsigned()  # reference frames
    bits.take(1)
    columns, rows = bits.unsigned() + 1, bits.unsigned() + 1
    fields = 2 - bits.take(1)
    if fields == 2:
        bits.take(1)
    bits.take(1)
    left, right, top, bottom = (bits.unsigned() for _ in range(4)) if bits.take(1) else (0,) * 4
    across, down = 2 if chroma in (1, 2) else 1, (2 if chroma == 1 else 1) * fields
    colour = _colour(bits) if bits.take(1) else (False, UNSPECIFIED, UNSPECIFIED, UNSPECIFIED)
    width, height = 16 * columns - across * (left + right), 16 * rows * fields
    return Sps(codec, width, height - down * (top + bottom), *colour)


def _skip_high(bits: _Bits) -> int:
    """Pass over what only high profiles carry; returns the chroma format."""
    chroma = bits.unsigned()
    if chroma == 3:
        bits.take(1)
    bits.unsigned()
    bits.unsigned()
    bits.take(1)
    if bits.take(1):
        for index in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling(bits, 16 if index < 6 else 64)
    return chroma


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _skip_order(bits: _Bits) -> None:
    """Pass over how pictures are put in order."""
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        count = bits.unsigned()
        if count > 255:
            raise ShapeError("a cycle of pictures", expected="at most 255", got=count)
        for _ in range(count):
            bits.signed()


def _colour(bits: _Bits) -> tuple[bool, int, int, int]:
    """From the VUI: full range, primaries, transfer, matrix."""
    if bits.take(1) and bits.take(8) == 255:
        bits.take(32)  # aspect ratio of its own
    if bits.take(1):
        bits.take(1)
    if not bits.take(1):
        return False, UNSPECIFIED, UNSPECIFIED, UNSPECIFIED
    bits.take(3)
    full = bool(bits.take(1))
    if not bits.take(1):
        return full, UNSPECIFIED, UNSPECIFIED, UNSPECIFIED
    return full, bits.take(8), bits.take(8), bits.take(8)
