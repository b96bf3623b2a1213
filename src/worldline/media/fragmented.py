"""H.264 into fragmented MP4: what is written is playable at any time, also after a crash.

The head (`ftyp`, `moov`) holds no index; each fragment (`moof`, `mdat`) is complete in itself. A
file that ends in the middle of a fragment plays up to the fragment before. One video track, time in
pictures: `number` of a sample divided by the rate. Boxes are those of ISO/IEC 14496-12 and -15.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO, Final, NamedTuple

from worldline.core.errors import ShapeError
from worldline.media import sps as nal
from worldline.media.sps import Sps, nal_type, nal_units, parse_sps

_TICKS: Final = 512  # per picture
_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_KEY_FLAGS: Final = 0x02000000  # depends on no other sample
_DELTA_FLAGS: Final = 0x01010000  # depends on others, and no place to start
_TRUN: Final = 0x000701  # offset of the data, then duration, size and flags of each sample
_UNDEFINED_LANGUAGE: Final = 0x55C4


class Sample(NamedTuple):
    """One picture: an access unit in Annex B, and its number."""

    data: bytes
    key: bool
    number: int


class FragmentedMp4:
    """A film that grows by fragments. The file stays the caller's to close.

    One that has so many `fragments` already goes on with `sets`, the parameter sets of its head
    (see `sets_of`); the numbers of its samples count from 0.
    """

    def __init__(
        self, out: BinaryIO, fps: int, *, fragments: int = 0, sets: Sequence[bytes] = ()
    ) -> None:
        self._out = out
        self._fps = fps
        self._first = 0
        self._sequence = fragments
        self._sets = list(sets)

    def write(self, samples: Sequence[Sample], until: int) -> int:
        """Append one fragment, whose last picture lasts until picture `until`; returns its bytes.

        The first sample of the film is a key frame with its parameter sets.
        Raises: ShapeError when it is not, and for numbers that do not rise.
        """
        if not samples:
            return 0
        numbers = [*(sample.number for sample in samples), until]
        durations = [after - at for at, after in pairwise(numbers)]
        if min(durations) <= 0:
            raise ShapeError("pictures out of order", expected="rising numbers", got=numbers)
        head = b"" if self._sequence else self._head(samples[0])
        data = [self._without_sets(sample.data) for sample in samples]
        self._sequence += 1
        fragment = _fragment(
            self._sequence,
            (samples[0].number - self._first) * _TICKS,
            [
                (duration * _TICKS, len(part), _KEY_FLAGS if sample.key else _DELTA_FLAGS)
                for sample, part, duration in zip(samples, data, durations, strict=True)
            ],
        )
        mdat = _box(b"mdat", *data)
        self._out.write(head + fragment + mdat)
        self._out.flush()
        return len(head) + len(fragment) + len(mdat)

    def _head(self, sample: Sample) -> bytes:
        sets = [unit for unit in nal_units(sample.data) if nal_type(unit) in (nal.SPS, nal.PPS)]
        found = next((unit for unit in sets if nal_type(unit) == nal.SPS), None)
        pps = next((unit for unit in sets if nal_type(unit) == nal.PPS), None)
        if found is None or pps is None:
            raise ShapeError("a film begins with a key frame", got=f"picture {sample.number}")
        self._sets = [found, pps]
        self._first = sample.number
        return head(found, pps, fps=self._fps)

    def _without_sets(self, data: bytes) -> bytes:
        """Annex B to length-prefixed units; parameter sets that the head holds are left out."""
        units = [unit for unit in nal_units(data) if unit not in self._sets]
        return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def head(sps: bytes, pps: bytes, *, fps: int) -> bytes:
    """`ftyp` and `moov` of a film with these parameter sets. Raises: ShapeError."""
    facts = parse_sps(sps)
    ftyp = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso5iso6avc1mp41")
    scale = fps * _TICKS
    mvhd = _full(b"mvhd", struct.pack(">4I", 0, 0, scale, 0), struct.pack(">IH", 0x10000, 0x100),
                 bytes(10), _MATRIX, bytes(24), struct.pack(">I", 2))  # fmt: skip
    trex = _full(b"trex", struct.pack(">5I", 1, 1, 0, 0, 0))
    return ftyp + _box(b"moov", mvhd, _track(facts, sps, pps, scale), _box(b"mvex", trex))


def sets_of(film: bytes) -> list[bytes]:
    """SPS and PPS in the head of a film that this module began; `film` is its start.

    Raises: ShapeError where there is no such head.
    """
    at = film.find(b"avcC")
    if film[4:8] != b"ftyp" or at < 0:
        raise ShapeError("no head of a film", got=f"{len(film)} bytes")
    body = film[at + 4 :]
    sps_size = int.from_bytes(body[6:8], "big")
    rest = body[8 + sps_size :]
    pps_size = int.from_bytes(rest[1:3], "big")
    found = [body[8 : 8 + sps_size], rest[3 : 3 + pps_size]]
    if [nal_type(unit) for unit in found if unit] != [nal.SPS, nal.PPS]:
        raise ShapeError("a head without parameter sets", got=f"{len(film)} bytes")
    return found


def _track(facts: Sps, sps: bytes, pps: bytes, scale: int) -> bytes:
    size = struct.pack(">2I", facts.width << 16, facts.height << 16)
    tkhd = _full(b"tkhd", struct.pack(">5I", 0, 0, 1, 0, 0), bytes(16), _MATRIX, size, flags=3)
    mdhd = _full(b"mdhd", struct.pack(">4I2H", 0, 0, scale, 0, _UNDEFINED_LANGUAGE, 0))
    hdlr = _full(b"hdlr", bytes(4), b"vide", bytes(12), b"Worldline\x00")
    dref = _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))
    tables = [_full(name, bytes(4)) for name in (b"stts", b"stsc", b"stco")]
    stsd = _full(b"stsd", struct.pack(">I", 1), _avc1(facts, sps, pps))
    stbl = _box(b"stbl", stsd, *tables, _full(b"stsz", bytes(8)))
    vmhd = _full(b"vmhd", bytes(8), flags=1)
    minf = _box(b"minf", vmhd, _box(b"dinf", dref), stbl)
    return _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf))


def _avc1(facts: Sps, sps: bytes, pps: bytes) -> bytes:
    configuration = _box(
        b"avcC",
        bytes([1, sps[1], sps[2], sps[3], 0xFF, 0xE1]),
        struct.pack(">H", len(sps)),
        sps,
        struct.pack(">BH", 1, len(pps)),
        pps,
    )
    colour = (facts.primaries, facts.transfer, facts.matrix, 0x80 if facts.full_range else 0)
    return _box(
        b"avc1",
        bytes(6),
        struct.pack(">H", 1),
        bytes(16),
        struct.pack(">2H3IH", facts.width, facts.height, 0x480000, 0x480000, 0, 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
        configuration,
        _box(b"colr", b"nclx", struct.pack(">3HB", *colour)),
    )


def _fragment(sequence: int, start: int, samples: Sequence[tuple[int, int, int]]) -> bytes:
    """A `moof`; `samples` are durations in ticks, sizes in bytes, flags."""

    def moof(offset: int) -> bytes:
        rows = b"".join(struct.pack(">3I", *sample) for sample in samples)
        tfhd = _full(b"tfhd", struct.pack(">I", 1), flags=0x020000)  # offsets count from here
        tfdt = _full(b"tfdt", struct.pack(">Q", start), version=1)
        trun = _full(b"trun", struct.pack(">Ii", len(samples), offset), rows, flags=_TRUN)
        mfhd = _full(b"mfhd", struct.pack(">I", sequence))
        return _box(b"moof", mfhd, _box(b"traf", tfhd, tfdt, trun))

    return moof(len(moof(0)) + 8)  # the samples begin behind the head of `mdat`


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def _full(name: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), *parts)
