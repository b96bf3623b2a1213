"""Exact snapshots on disk: written while the session runs on, read with care.

`WORLDLINE_FUZZ_SNAPSHOTS=100000 python -m pytest tests/runtime/test_snapshot_files.py --timeout=0`
says how many broken ones.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import (
    DamagedSnapshotError,
    InputError,
    NewerSnapshotError,
    OtherWeightsError,
    SnapshotError,
)
from worldline.core.sealed import seal
from worldline.core.snapshot import MAGIC, VERSION, decode_chunk, decode_snapshot
from worldline.runtime import snapshot_file
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.session import Session
from worldline.runtime.snapshot_file import DIGEST, HEAD

EXAMPLES = int(os.environ.get("WORLDLINE_FUZZ_SNAPSHOTS", "80"))
WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
OPTIONS = {
    "plain": EngineOptions(),
    "int8, recached": EngineOptions(kv="8bit", recache=True),
}
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def walk(session: Session, chunks: int) -> list[np.ndarray]:
    made = []
    for _ in range(chunks):
        i = session.next_chunk
        prompt = "a frozen lake at night" if i == 2 else None
        made.append(session.step(WALK[i % 3], prompt=prompt, blend_chunks=3).frames)
    return made


def begin(world: World) -> Session:
    return world.start(tiny.picture(), tiny.PROMPT, 3, steps=2)


@pytest.mark.parametrize("name", OPTIONS)
def test_another_process_would_go_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    """Another world of the same weights; the session walks on while its file is written."""
    session, path = begin(tiny.world(options=OPTIONS[name])), tmp_path / "a.snapshot"
    plain = walk(session, 4)
    pieces = session.writing(str(path))
    next(pieces)  # from here on the session may be stepped
    plain += walk(session, 1)
    for _ in pieces:
        assert not path.exists()
        if session.next_chunk < 7:
            plain += walk(session, 1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    world = tiny.world(options=OPTIONS[name])
    with world.reopen(path) as again:
        assert again.next_chunk == 4 and again.parked
        assert all(np.array_equal(a, b) for a, b in zip(walk(again, 3), plain[4:], strict=True))
        assert again.rewind(chunk=1) == 1, "it knows the walk"
        assert np.array_equal(walk(again, 1)[0], plain[1])
        again.reset()
        assert np.array_equal(walk(again, 1)[0], plain[0])
        assert session.save(path) == path.stat().st_size


def test_a_snapshot_of_the_start_and_of_a_parked_session(tmp_path: Path) -> None:
    session = begin(tiny.world())
    session.save(tmp_path / "start")
    plain = walk(session, 3)
    session.park()
    session.save(tmp_path / "parked")
    world = tiny.world()
    assert np.array_equal(walk(world.reopen(tmp_path / "start"), 1)[0], plain[0])
    assert np.array_equal(walk(world.reopen(tmp_path / "parked"), 1)[0], walk(session, 1)[0])


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    session = begin(tiny.world())
    with pytest.raises(SnapshotError):
        session.save(tmp_path / "nowhere" / "a")
    (tmp_path / "kept").write_text("before")
    pieces = session.writing(str(tmp_path / "kept"))
    next(pieces)
    next(pieces)
    pieces.close()
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("kept", "before")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of a session that has walked a little."""
    session, path = begin(tiny.world()), tmp_path_factory.mktemp("snapshots") / "a"
    walk(session, 3)
    session.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def header_of(data: bytes) -> dict[str, object]:
    length = HEAD.unpack(data[: HEAD.size])[3]
    return msgspec.msgpack.decode(data[HEAD.size : HEAD.size + length])


def with_header(data: bytes, header: object) -> bytes:
    """The file with another header, sealed as if it were its own."""
    magic, version, _, length, body = HEAD.unpack(data[: HEAD.size])
    tensors = data[HEAD.size + length + DIGEST :]
    packed = msgspec.msgpack.encode(header)
    front = HEAD.pack(magic, version, 0, len(packed), body) + packed
    return front + hashlib.blake2b(front, digest_size=DIGEST).digest() + tensors


def test_damage_is_named(written: bytes, world: World, tmp_path: Path) -> None:
    flipped = bytearray(written)
    flipped[-100] ^= 1
    early = bytearray(written)
    early[40] ^= 1
    later = bytearray(written)
    later[8] = 9
    huge = written[:12] + struct.pack("<QQ", 2**62, 2**62) + written[28:]
    cases: list[tuple[bytes | bytearray, type[Exception]]] = [
        (flipped, DamagedSnapshotError),
        (early, DamagedSnapshotError),
        (later, NewerSnapshotError),
        (huge, DamagedSnapshotError),
        (written[:-1], DamagedSnapshotError),
        (written[: len(written) // 2], DamagedSnapshotError),
        (written + b"x", DamagedSnapshotError),
        (b"", DamagedSnapshotError),
        (b"GIF89a" * 20, DamagedSnapshotError),
    ]
    for data, error in cases:
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(error):
            world.reopen(tmp_path / "a")
    with pytest.raises(SnapshotError):
        world.reopen(tmp_path / "nothing")
    other = tiny.world()
    other.shared = other.shared._replace(weights="others")
    (tmp_path / "a").write_bytes(written)
    with pytest.raises(OtherWeightsError):
        other.reopen(tmp_path / "a")
    with pytest.raises(SnapshotError):
        tiny.world(options=EngineOptions(kv="8bit")).reopen(tmp_path / "a")
    assert len(world.shared.ledger) == 0 and world.counts().parked_bytes == 0


def test_a_header_that_lies_is_refused_before_a_tensor_is_made(
    written: bytes, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed by somebody who knows how: sizes, places and numbers that cannot be."""

    def lie(change: Callable[[dict[str, object]], object]) -> None:
        header = header_of(written)
        change(header)
        (tmp_path / "a").write_bytes(with_header(written, header))
        with pytest.raises(InputError):
            world.reopen(tmp_path / "a")

    numbers = header_of(written)["settings"]
    assert isinstance(numbers, dict)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_file.torch, "empty", forbidden)
        for name, value in {
            "tensors": [["float32", [2**50]]],
            "picture": 999,
            "prompt": -1,
            "width": 2**40,
            "next_chunk": -5,
            "anchor": 10**9,
            "weights": "none",
            "intrinsics": [0.0, 1.0, 2.0, 3.0],
            "settings": numbers | {"window": 2},
            "frames": "many",
            "dtype": "float64",
        }.items():
            lie(lambda header, n=name, v=value: header.update({n: v}))
        lie(lambda header: header.update(settings=numbers | {"chunk": 2**31}))
        lie(lambda header: header.pop("camera"))
    for change in (
        {"frames": []},
        {"decoder": None},
        {"settings": numbers | {"window": 900}},
        {"next_chunk": 2},
    ):
        lie(lambda header, c=change: header.update(c))


def forbidden(*args: object, **kwargs: object) -> torch.Tensor:
    raise AssertionError("nothing is to be allocated")


@fuzz
@given(st.data())
def test_files_of_other_bytes_are_refused(
    written: bytes, world: World, tmp_path: Path, data: st.DataObject
) -> None:
    """Bits flipped, cut, pasted, and headers changed under a seal that fits."""
    kind = data.draw(st.sampled_from(["flip", "cut", "paste", "header"]))
    if kind == "header":
        header = header_of(written)
        name = data.draw(st.sampled_from(sorted(header)))
        value = data.draw(
            st.none()
            | st.integers(-(2**63), 2**63)
            | st.binary(max_size=9)
            | st.text(max_size=3)
            | st.lists(st.integers(-9, 2**40), max_size=3)
            | st.floats()
        )
        changed = with_header(written, header | {name: value})
    else:
        at = data.draw(st.integers(0, len(written) - 1))
        if kind == "flip":
            flip = data.draw(st.integers(1, 255))
            changed = written[:at] + bytes([written[at] ^ flip]) + written[at + 1 :]
        elif kind == "cut":
            changed = written[:at]
        else:
            changed = written[:at] + data.draw(st.binary(max_size=40)) + written[at:]
    path = tmp_path / "a"
    path.write_bytes(changed)
    try:
        world.reopen(path).close()
    except InputError:
        return
    # What is still read was not changed in anything that is looked at, or only in its start.
    assert changed == written or kind == "header"


@pytest.fixture(scope="module")
def light() -> bytes:
    session = begin(tiny.world())
    walk(session, 3)
    return session.snapshot(light=True).encode()


@fuzz
@given(st.data())
def test_light_ones_of_other_bytes_are_refused(light: bytes, data: st.DataObject) -> None:
    """As above, with bodies sealed anew: what is decoded can be opened, all else is an error."""
    body = light[36:]
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))] + data.draw(st.binary(max_size=30))
        changed = seal(MAGIC, VERSION, body)
    else:
        values = msgspec.msgpack.decode(body)
        name = data.draw(st.sampled_from(sorted(values)))
        value = data.draw(
            st.none()
            | st.integers(-(2**63), 2**63)
            | st.binary(max_size=9)
            | st.text(max_size=3)
            | st.lists(st.integers(-9, 2**40), max_size=3)
            | st.floats()
        )
        changed = seal(MAGIC, VERSION, msgspec.msgpack.encode(values | {name: value}))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed = changed[:at] + b"\x00" + changed[at:]
    try:
        found = decode_snapshot(changed)
    except SnapshotError:
        return
    found.check()
    assert decode_snapshot(found.encode()) == found


@fuzz
@given(st.binary(max_size=200))
def test_bytes_of_nobody_are_no_chunk_and_no_snapshot(data: bytes) -> None:
    for decode in (decode_chunk, decode_snapshot):
        with pytest.raises(SnapshotError):
            decode(data)


def test_words_that_are_no_text_are_refused(light: bytes) -> None:
    """What the fuzzer found: not an error of the decoder's own."""
    body = light[36:].replace(b"a frozen lake", b"a \xfflozen lake")
    with pytest.raises(SnapshotError):
        decode_snapshot(seal(MAGIC, VERSION, body))
