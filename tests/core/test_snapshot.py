"""Light snapshots as values: what stays, what leaves, and what cannot be one."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from worldline.core.errors import DamagedSnapshotError, NewerSnapshotError, SnapshotError
from worldline.core.motion import START_POSE, Pose
from worldline.core.sealed import OVERHEAD, seal, unseal
from worldline.core.snapshot import (
    LightChunk,
    LightPrompt,
    LightSnapshot,
    chunk_back,
    decode_chunk,
    decode_snapshot,
)

SENTENCE = LightPrompt("a red hall")


def start(**changes: Any) -> LightSnapshot:
    made = LightSnapshot(
        weights="w",
        seed=1,
        width=48,
        height=32,
        chunk=3,
        window=7,
        sink=2,
        history=8,
        prompt=SENTENCE,
    )
    return msgspec.structs.replace(made, **changes)


def chunk(index: int, **changes: Any) -> LightChunk:
    made = LightChunk(
        index=index,
        frames=3,
        latents=bytes(4 * 16 * 3 * 4 * 6),
        relative=bytes(4 * 3 * 16),
        keys=bytes(4 * 3 * 4),
        poses=(START_POSE,) * 3,
        prompt=SENTENCE,
        anchor=index,
        sink_shift=index,
    )
    return msgspec.structs.replace(made, **changes)


def after(chunks: int, first: LightSnapshot | None = None) -> LightSnapshot:
    light = first or start()
    for index in range(chunks):
        light = light.with_chunk(chunk(index))
    return light


def test_the_sink_and_what_window_and_decoder_reach_back_to_stay() -> None:
    """Here 8 latent frames for the decoder: three chunks, and the one with the sink."""
    assert [c.index for c in after(3).chunks] == [0, 1, 2] and after(3).is_whole
    light = after(9)
    assert [c.index for c in light.chunks] == [0, 6, 7, 8] and not light.is_whole
    assert (light.next_chunk, light.anchor, light.sink_shift) == (9, 8, 8)
    assert light.nbytes == 4 * chunk(0).nbytes
    wide = after(9, start(history=0, window=14))
    assert [c.index for c in wide.chunks] == [0, 5, 6, 7, 8], "twelve of the window"
    assert after(9, start(everything=True)).is_whole
    assert after(9, start(window=-1)).is_whole


def test_a_snapshot_is_a_value() -> None:
    """One more chunk is another one; bytes and back are the same."""
    before = after(4)
    kept = before.chunks
    later = before.with_chunk(chunk(4))
    assert before.chunks == kept and before.next_chunk == 4
    assert later.chunks[-2] is before.chunks[-1], "chunks are shared"
    assert decode_snapshot(later.encode()) == later
    assert decode_chunk(chunk(4).encode()) == chunk(4)
    assert decode_snapshot(memoryview(start().encode())) == start()


@pytest.mark.parametrize(
    "wrong",
    [
        chunk(3),
        chunk(5),
        chunk(4, frames=2),
        chunk(4, latents=b""),
        chunk(4, relative=bytes(8)),
        chunk(4, keys=struct.pack("<12f", *[float("nan")] * 12)),
        chunk(4, poses=(START_POSE,)),
        chunk(4, poses=(Pose((0.0,)),) * 3),
        chunk(4, poses=(Pose(START_POSE.c2w, float("inf")),) * 3),
        chunk(4, prompt=LightPrompt("x", (), 5, 2)),
        chunk(4, prompt=LightPrompt("x", (("y", float("nan")),), 5, 2)),
        chunk(4, prompt=LightPrompt("x", (("y", 1.0),) * 99, 5, 2)),
        chunk(4, prompt=LightPrompt("x", rows=-1)),
    ],
)
def test_a_chunk_of_another_world_is_refused(wrong: LightChunk) -> None:
    with pytest.raises(SnapshotError):
        after(4).with_chunk(wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"width": 50},
        {"height": 2**40},
        {"chunk": 0},
        {"window": 4},
        {"window": 2**40},
        {"sink": -1},
        {"history": -1},
        {"next_chunk": -1},
        {"next_chunk": 2**62},
        {"next_chunk": 8},
        {"next_chunk": 10},
        {"everything": True},
        {"window": -1},
        {"chunks": ()},
        {"chunks": after(9).chunks[::-1]},
        {"chunks": after(9).chunks[1:]},
        {"chunks": (*after(9).chunks[:2], *after(9).chunks)},
        {"seed": -(2**64) // 2 - 1},
        {"camera": Pose(())},
    ],
)
def test_a_world_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    """In no time, however large the numbers are."""
    with pytest.raises(SnapshotError):
        msgspec.structs.replace(after(9), **changes).check()


def test_texts_in_force() -> None:
    """A blend that another one interrupts begins at the mixture."""
    plain = LightPrompt("a", rows=3)
    assert plain.mix == (("a", 1.0),)
    blend = plain.switched("b", 4, 5)
    assert (blend.mix, blend.rows) == ((("a", 1.0),), 5)
    half = msgspec.structs.replace(blend, blended=2)
    assert half.mix == (("a", 1.0), ("b", 0.5))
    third = msgspec.structs.replace(half.switched("c", 2, 5), blended=1)
    assert third.mix == (("a", 1.0), ("b", 0.5), ("c", 0.5))
    assert msgspec.structs.replace(third, blended=2).mix == (("c", 1.0),)
    assert half.switched("d", 0, 2).mix == (("d", 1.0),)
    for i in range(200):
        third = msgspec.structs.replace(third.switched(str(i), 9, 5), blended=1)
        third.check()


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 20), (0.01, 19), (0.75, 19), (0.76, 18), (3.0, 16), (99.0, 0)]
)
def test_seconds_are_whole_chunks_back(seconds: float, place: int) -> None:
    """Three latent frames are twelve pictures: three quarters of a second."""
    assert chunk_back(20, seconds, chunk=3, fps=16) == place


def test_an_envelope_tells_what_is_wrong() -> None:
    body = bytes(range(100))
    data = seal(b"SOMEKIND", 3, body)
    assert len(data) == len(body) + OVERHEAD

    def opened(changed: bytes, *, version: int = 3, limit: int = 1000) -> bytes:
        found = unseal(changed, magic=b"SOMEKIND", version=version, limit=limit, what="thing")
        return bytes(found)

    assert opened(data) == body
    with pytest.raises(NewerSnapshotError, match="expected 2; got 3"):
        opened(data, version=2)
    with pytest.raises(DamagedSnapshotError, match="too large"):
        opened(data, limit=99)
    for at in range(0, len(data), 7):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        with pytest.raises(SnapshotError):
            opened(flipped)
    for changed in (b"", data[:-1], data + b"x", data[: OVERHEAD - 1], b"OTHER" + data[5:]):
        with pytest.raises(DamagedSnapshotError):
            opened(changed)


def test_an_earlier_place_of_the_same_walk() -> None:
    """While all its chunks are there; else nobody knows."""
    whole = after(6, start(everything=True))
    assert whole.before(4, start()) == after(4, start(everything=True))
    assert whole.before(0, start()) == start(everything=True)
    assert after(9).before(8, start()) is None
    assert whole.before(7, start()) is None and whole.before(-1, start()) is None
