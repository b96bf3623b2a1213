"""World files: what goes in comes out, and nothing unusable comes in."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests import worlds
from worldline.core import worldfile
from worldline.core.config import EngineOptions, WorldInfo
from worldline.core.errors import DamagedWorldError, NewerWorldError, WorldFileError
from worldline.core.motion import Motion
from worldline.core.tape import tape
from worldline.core.walk import (
    Guided,
    PromptAt,
    Run,
    Stepped,
    StepsAt,
    Walk,
    WorldFile,
    engine_options,
    made_with,
    pose_rows,
    relative_and_keys,
)
from worldline.core.walked import Walked
from worldline.core.worldfile import load_world_file, read_world, write_world

HEAD = 52


def equal(a: Stepped, b: Stepped) -> bool:
    poses = (a.poses is None) == (b.poses is None) and np.array_equal(
        np.zeros(0) if a.poses is None else a.poses, np.zeros(0) if b.poses is None else b.poses
    )
    plain = (repr(one._replace(poses=None)) for one in (a, b))
    return poses and len(set(plain)) == 1


def packed(table: bytes, picture: bytes = worlds.PICTURE, version: int = 1) -> bytes:
    """A file of any table, its sum right."""
    head = struct.pack(">8sHHII", worldfile.MAGIC, version, 0, len(table), len(picture))
    return head + hashlib.sha256(head + table + picture).digest() + table + picture


def with_walk(**changes: object) -> WorldFile:
    file = worlds.walked().file()
    return msgspec.structs.replace(file, walk=msgspec.structs.replace(file.walk, **changes))


def test_what_goes_in_comes_out() -> None:
    data = worlds.walked().encode()
    file = read_world(data)
    assert (file.start, file.made) == (worlds.start(), worlds.made())
    assert all(equal(a, b) for a, b in zip(file.chunks(), worlds.chunks(), strict=True))
    assert len(data) < 1200
    assert write_world(file) == data
    assert Walked.of(file).encode() == data
    assert file.seconds == (4 * 15 - 3) / 16


def test_equal_controls_are_one_run() -> None:
    walked = Walked(worlds.start(), worlds.made())
    for index in range(4800):  # an hour
        motion = Motion(z=1.0) if index < 2400 else Motion(z=1.0, yaw=0.5)
        walked.add(Stepped(motions=(motion,) * 3, digest=worlds.DIGEST))
    assert [run.count for run in walked.file().walk.runs] == [7200, 7200]
    assert len(walked.encode()) < 4800 * 16 + 1200


def test_going_back_and_branching() -> None:
    walked = worlds.walked()
    other = walked.branch(2)
    walked.truncate(3)
    assert (len(walked), len(other), walked.prompt, other.prompt) == (
        3,
        2,
        "a beach",
        "a sandy court",
    )
    other.add(worlds.chunks()[4])
    assert len(walked) == 3 and len(other.file().walk.digests) == 48
    walked.restart(seed=9)
    assert (len(walked), walked.start.seed, walked.start.prompt) == (0, 9, "a sandy court")
    assert read_world(walked.encode()).walk.chunks == 0


def test_a_walk_with_some_digests_or_none() -> None:
    walked = worlds.walked()
    walked.add(Stepped(motions=(Motion(),) * 3))
    file = read_world(walked.encode())
    assert file.walk.digests == walked.file().walk.digests
    assert [len(chunk.digest) for chunk in file.chunks()] == [16] * 5 + [0]
    assert Walked.of(file).encode() == walked.encode()
    bare = Walked(worlds.start(), worlds.made(), [Stepped(motions=(Motion(),) * 3)] * 2)
    assert bare.file().walk.digests == b""
    assert [chunk.digest for chunk in read_world(bare.encode()).chunks()] == [b"", b""]


def test_zeros_keep_their_sign() -> None:
    motions = (Motion(), Motion(x=-0.0), Motion())
    walked = Walked(worlds.start(), worlds.made(), [Stepped(motions=motions)])
    (chunk,) = read_world(walked.encode()).chunks()
    assert repr(chunk.motions) == repr(motions)


def test_a_tape_follows_recorded_poses_at_their_speed() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 2, 3] = 0.5  # of full speed
    walked = Walked(worlds.start(), worlds.made(), [Stepped(poses=pose_rows(poses))])
    (motions,) = tape(walked.file())
    assert [motion.z for motion in motions] == pytest.approx([0.5] * 3, abs=1e-6)


def test_what_made_it_keeps_no_path() -> None:
    options = EngineOptions(decoder="/home/somebody/small.safetensors", lossy=("still_window=5",))
    info = WorldInfo(
        model="pocket",
        family="pocket",
        width=160,
        height=96,
        sizes=((160, 96),),
        fps=16,
        chunk=3,
        window=21,
        sink=3,
        steps=2,
        device="cpu",
        dtype="float32",
        mode="exact",
        licence="Apache-2.0",
        weights="abc",
        options=options,
    )
    made = made_with(info)
    assert "first_chunks_mb" not in made.options
    wanted = msgspec.structs.replace(options, decoder="small.safetensors")
    assert engine_options(made) == wanted
    walked = Walked(worlds.start(), made)
    assert read_world(walked.encode()).made == made
    told = {"loras": ("/home/somebody/own.safetensors",), "first_chunks_mb": -1, "timeline_mb": 0}
    theirs = msgspec.structs.replace(made, options={**made.options, **told})
    assert engine_options(theirs) == wanted, "a file says nothing of what is read or kept here"
    for options_of in ({"sparkle": True}, {"kv": "1bit"}):
        with pytest.raises(NewerWorldError):
            engine_options(msgspec.structs.replace(made, options=options_of))


def test_what_is_other_is_told() -> None:
    made = worlds.made()
    assert made.differences(made) == []
    other = worlds.made(torch="3", ranks=2, options={**made.options, "kv": "8bit", "graphs": "on"})
    told = ["ranks was 1, here 2", "torch was 2, here 3", "kv was None, here 8bit"]
    assert made.differences(other) == told


def test_every_flipped_byte_is_found() -> None:
    data = worlds.walked().encode()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(WorldFileError):
            read_world(bytes(changed))


def test_every_cut_is_found() -> None:
    data = worlds.walked().encode()
    for length in range(len(data)):
        with pytest.raises(DamagedWorldError):
            read_world(data[:length])
    with pytest.raises(DamagedWorldError, match="followed"):
        read_world(data + b"\0")


def test_a_file_of_the_future() -> None:
    table = worlds.walked().encode()[HEAD:]
    with pytest.raises(NewerWorldError, match=r"later version.*at most 1.*got 2"):
        read_world(packed(table, b"", version=2))
    with pytest.raises(DamagedWorldError):
        read_world(packed(table, b"", version=0))


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    data = worlds.walked().encode()
    length = struct.unpack_from(">I", data, 12)[0]
    table = msgspec.msgpack.decode(data[HEAD : HEAD + length])
    table["weather"] = {"rain": [1, 2]}
    assert read_world(packed(msgspec.msgpack.encode(table))) == read_world(data)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.wl"
    with path.open("wb") as file:
        file.truncate(worldfile.MAX_BYTES + 1)  # sparse
    with pytest.raises(WorldFileError, match="too large"):
        load_world_file(path)
    with pytest.raises(WorldFileError, match="cannot be read"):
        load_world_file(tmp_path / "nowhere.wl")
    start = worlds.start(picture=bytes(worldfile.MAX_BYTES))
    with pytest.raises(WorldFileError, match="world file is too large"):
        Walked(start, worlds.made()).encode()
    monkeypatch.setattr(worldfile, "MAX_TABLE", 100)
    with pytest.raises(WorldFileError, match="walk is too large"):
        worlds.walked().encode()
    with pytest.raises(WorldFileError, match="walk is too large"):
        read_world(packed(bytes(101)))


ARRAYS = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5000)


@pytest.mark.parametrize("head", ARRAYS)
def test_sizes_that_are_promised_and_not_there(head: bytes) -> None:
    for table in (
        head,
        b"\x81\xa5start" + head,
        b"\x81\xa4walk\x81\xa4runs" + head,
        b"\x81\xa1x" + head,
    ):
        with pytest.raises(DamagedWorldError, match="something else"):
            read_world(packed(table))


BAD_WALKS: list[dict[str, object]] = [
    {"chunks": 4},
    {"chunks": -1},
    {"chunks": 2**40, "runs": (Run(3 * 2**40, "w"),), "digests": b""},
    {"runs": (Run(2**31, "w"),)},
    {"runs": (Run(15, Motion(z=1.5)),)},
    {"runs": (Run(15, Motion(yaw=float("nan"))),)},
    {"runs": (Run(15, "wx"),)},
    {"runs": (Run(15, "w" * 9),)},
    {"runs": (Run(0, "w"), Run(15, "w"))},
    {"runs": (Run(16, "w"), Run(-1, "w"))},
    {"runs": (Run(1, "w"), Run(2, Motion()), Run(12, ""))},
    {"runs": (Run(15, None),)},
    {"poses": b""},
    {"poses": b"\xff" * 192},
    {"poses": bytes(192)},
    {"digests": bytes(16)},
    {"prompts": (PromptAt(5, "late"),)},
    {"prompts": (PromptAt(-1, "early"),)},
    {"prompts": (PromptAt(2, "twice"), PromptAt(2, "twice"))},
    {"prompts": (PromptAt(1, " "),)},
    {"prompts": (PromptAt(1, "x" * 65_537),)},
    {"prompts": (PromptAt(1, "x", -1),)},
    {"steps": (StepsAt(1, 0),)},
    {"steps": (StepsAt(3, 2), StepsAt(1, 2))},
]


@pytest.mark.parametrize("changes", BAD_WALKS, ids=str)
def test_walks_that_cannot_be(changes: dict[str, object]) -> None:
    file = with_walk(**changes)
    with pytest.raises(WorldFileError):
        write_world(file)
    table = msgspec.msgpack.encode(file)
    with pytest.raises(WorldFileError):
        read_world(packed(table))


BAD_STARTS: list[dict[str, object]] = [
    {"picture": b""},
    {"pixels": b""},
    {"prompt": ""},
    {"prompt": "\ud800"},
    {"seed": 2**64},
    {"width": 50},
    {"height": 0},
    {"width": 8208},
    {"fps": 0},
    {"chunk": 0},
    {"window": -2},
    {"sink": -1},
    {"steps": 0},
    {"steps": ()},
    {"shift": float("inf")},
    {"intrinsics": (0.0, 1.0, 1.0, 1.0)},
    {"rig": {"move": 0.0}},
    {"guided": Guided(overlap=2)},
    {"guided": Guided(guidance=float("nan"))},
    {"guided": Guided(solver="x" * 513)},
    {"guided": Guided(negative_prompt="x" * 65_537)},
]


@pytest.mark.parametrize("changes", BAD_STARTS, ids=str)
def test_starts_that_cannot_be(changes: dict[str, object]) -> None:
    if "rig" in changes:
        changes = {"rig": msgspec.structs.replace(worlds.start().rig, move=0.0)}
    with pytest.raises(WorldFileError):
        Walked(worlds.start(**changes), worlds.made()).encode()


def test_films_of_guided_models_change_nothing_on_their_way() -> None:
    def film(chunks: int, **changes: object) -> Walked:
        start = worlds.start(guided=Guided(overlap=1), chunk=1)
        step = Stepped(actions=((),))._replace(**changes)
        return Walked(start, worlds.made(), [step] * chunks)

    assert read_world(film(1).encode()).pictures == 1
    for bad in (film(1, prompt="rain"), film(1, steps=2), film(2)):
        with pytest.raises(WorldFileError):
            bad.encode()


def test_other_kinds_of_values() -> None:
    data = worlds.walked().encode()
    length = struct.unpack_from(">I", data, 12)[0]
    table = msgspec.msgpack.decode(data[HEAD : HEAD + length])
    for part, name in (
        ("start", "seed"),
        ("made", "options"),
        ("walk", "runs"),
        ("walk", "chunks"),
    ):
        broken = {**table, part: {**table[part], name: "x"}}
        with pytest.raises(DamagedWorldError, match=name):
            read_world(packed(msgspec.msgpack.encode(broken)))
        missing = {**table, part: {k: v for k, v in table[part].items() if k != name}}
        with pytest.raises(DamagedWorldError, match=name):
            read_world(packed(msgspec.msgpack.encode(missing)))


def test_rows_of_poses() -> None:
    relative = np.stack([np.array(worlds.turned(d), dtype=np.float32) for d in (0, 5)])
    rows = pose_rows(relative, [[1, 0, 0, 0], [0, 0, 0, 1]])
    back, keys = relative_and_keys(rows)
    assert np.array_equal(back, relative) and keys.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    for bad in (relative[:, :3], relative * 2):
        with pytest.raises(WorldFileError):
            pose_rows(bad)
    with pytest.raises(WorldFileError):
        pose_rows(relative, [[0, 0, 0, 0]])


def test_a_tape_gives_motions_whatever_was_recorded() -> None:
    chunks = list(tape(worlds.walked().file()))
    assert chunks[0] == (Motion(z=1.0),) * 3
    assert chunks[2] == (Motion(z=1.0), Motion(z=1.0, yaw=1.0), Motion())
    followed = chunks[3]
    assert [round(motion.yaw, 6) for motion in followed] == [0.0, 0.5, 0.5]  # 3 of 6 degrees
    assert all(motion.z > 0.99 for motion in followed)


def test_readable_without_torch() -> None:
    code = (
        "import sys, worldline.core.worldfile, worldline.core.walked, worldline.core.tape, "
        "worldline.runtime.world_start; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_walk_has_a_length() -> None:
    assert (
        WorldFile(start=worlds.start(), made=worlds.made(), walk=Walk(chunks=0, runs=())).seconds
        == 0
    )
