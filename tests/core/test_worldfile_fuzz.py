"""World files against anything: read whole, or refused by a typed error before much is allocated.

`WORLDLINE_FUZZ_WORLDS=100000 python -m pytest tests/core/test_worldfile_fuzz.py` says how many.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import tracemalloc
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import worlds
from worldline.core import worldfile
from worldline.core.actions import ACTIONS
from worldline.core.errors import ControlError, WorldFileError
from worldline.core.motion import Motion
from worldline.core.tape import tape
from worldline.core.walk import Stepped, pose_rows
from worldline.core.walked import Walked
from worldline.core.worldfile import read_world, write_world

FILES = int(os.environ.get("WORLDLINE_FUZZ_WORLDS", "240"))
HEAD = 52
LOOKED_AT = 4  # chunks of an accepted file
# Python's objects for a byte of the table, and what a refusal and its text take.
A_BYTE, A_FILE = 64, 256 * 1024

fuzz = settings(max_examples=max(FILES // 4, 1), deadline=None, database=None)
DATA = worlds.walked().encode()
TABLE: dict[str, Any] = msgspec.msgpack.decode(
    DATA[HEAD : HEAD + struct.unpack_from(">I", DATA, 12)[0]]
)

EDGES = st.sampled_from(
    [0, -1, 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1e308, "", "w" * 9, b""]
)
leaves = EDGES | st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
leaves |= st.text(max_size=20) | st.binary(max_size=80)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
shares = st.floats(-1, 1)
motions = st.builds(Motion, shares, shares, shares, shares)
letters = st.lists(st.sampled_from(ACTIONS), unique=True).map(tuple)
texts = st.text(min_size=1, max_size=40).filter(str.strip)


def packed(table: bytes, picture: bytes) -> bytes:
    """A file of any table, its sum right."""
    head = struct.pack(">8sHHII", worldfile.MAGIC, 1, 0, len(table), len(picture))
    return head + hashlib.sha256(head + table + picture).digest() + table + picture


def opened(data: bytes) -> bool:
    """Read a file as everybody does; whether it was taken. Anything but a typed error fails."""
    tracemalloc.start()
    try:
        file = read_world(data)
    except WorldFileError as error:
        assert len(str(error)) < 2000
        return False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < A_BYTE * len(data) + A_FILE, f"{peak} bytes for a file of {len(data)}"
    for step in itertools.islice(file.chunks(), LOOKED_AT):
        assert isinstance(step, Stepped)
    try:
        followed = list(itertools.islice(tape(file), LOOKED_AT))
    except ControlError:
        followed = []
    assert all(len(chunk) == file.start.chunk for chunk in followed)
    assert read_world(write_world(file)) == file
    return True


@st.composite
def broken_tables(draw: st.DrawFn) -> bytes:
    """The table of a good file with some of its values replaced or missing."""
    table = msgspec.msgpack.decode(msgspec.msgpack.encode(TABLE))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = table
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None:
                break
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                place = inner
                continue
            if draw(st.integers(0, 9)) == 0:
                del place[key]
            else:
                place[key] = draw(values)
            break
    return msgspec.msgpack.encode(table)


@fuzz
@given(st.binary(max_size=400), st.binary(max_size=20))
def test_any_table(table: bytes, picture: bytes) -> None:
    opened(packed(table, picture))


@fuzz
@given(broken_tables())
def test_tables_with_other_values(table: bytes) -> None:
    opened(packed(table, worlds.PICTURE))


@fuzz
@given(st.data())
def test_bytes_that_changed(data: st.DataObject) -> None:
    """Of the file, or of the table below a sum that fits all the same."""
    sealed = data.draw(st.booleans())
    content = bytearray(DATA[HEAD:] if sealed else DATA)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(max_size=6))
        content[at : at + data.draw(st.integers(0, 6))] = piece
        if not content:
            break
    if sealed:
        cut = max(len(content) - len(worlds.PICTURE), 0)
        opened(packed(bytes(content[:cut]), bytes(content[cut:])))
    else:
        assert bytes(content) == DATA or not opened(bytes(content))


@st.composite
def walks(draw: st.DrawFn) -> tuple[Walked, list[Stepped]]:
    """Any walk that can be walked, and its chunks."""
    chunk, steps = draw(st.integers(1, 4)), list[Stepped]()
    start = worlds.start(chunk=chunk, prompt=draw(texts))
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["motions", "actions", "poses"]))
        turned = [worlds.turned(draw(st.floats(-180, 180))) for _ in range(chunk)]
        prompt = draw(st.none() | texts)
        step = Stepped(
            motions=draw(st.tuples(*[motions] * chunk)) if kind == "motions" else None,
            actions=draw(st.tuples(*[letters] * chunk)) if kind == "actions" else None,
            poses=pose_rows(turned) if kind == "poses" else None,
            prompt=prompt,
            blend_chunks=0 if prompt is None else draw(st.integers(0, 9)),
            steps=draw(st.none() | st.integers(1, 4)),
            digest=draw(st.binary(min_size=16, max_size=16).filter(any) | st.just(b"")),
        )
        steps.append(step)
    return Walked(start, worlds.made(), steps), steps


@fuzz
@given(walks())
def test_any_walk_comes_back_bit_for_bit(made: tuple[Walked, list[Stepped]]) -> None:
    walked, steps = made
    data = walked.encode()
    assert opened(data)
    assert Walked.of(read_world(data)).encode() == data
    assert [repr(step) for step in read_world(data).chunks()] == [repr(step) for step in steps]
