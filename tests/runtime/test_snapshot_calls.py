"""The time machine through the worker's door: calls, replies, and a worker that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from worldline.core.errors import (
    DamagedSnapshotError,
    OtherWeightsError,
    SessionError,
    SessionMissingError,
    SnapshotError,
    WorkerDiedError,
)
from worldline.core.snapshot import LightSnapshot, decode_chunk, decode_snapshot
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import OpenRequest, StepRequest, WorkerSettings

SIZE = (160, 96)
WALK = (("w",), ("w", "j"), ("l",), (), ("s", "d"))
Frames = list[NDArray[np.uint8]]


def spawn() -> WorkerHandle:
    return WorkerHandle.spawn(WorkerSettings(model="pocket", random_weights=True, threads=1))


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    handle = spawn()
    yield handle
    handle.shutdown()


def request(session_id: str, seed: int = 5) -> OpenRequest:
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return OpenRequest(
        session_id=session_id,
        image=pixels.tobytes(),
        image_width=SIZE[0],
        image_height=SIZE[1],
        prompt="a red hall",
        seed=seed,
        steps=1,
    )


def step(worker: WorkerHandle, session_id: str, index: int) -> tuple[NDArray[np.uint8], bytes]:
    """Frames of a chunk, and what it adds to a light snapshot; a blend begins at chunk 2."""
    asked = StepRequest(
        session_id=session_id,
        chunk_index=index,
        actions=(WALK[index % len(WALK)],),
        prompt="snow" if index == 2 else None,
        blend_chunks=3,
        keep=True,
    )
    with worker.step(asked) as result:
        return result.frames.copy(), result.kept


def walk(worker: WorkerHandle, session_id: str, chunks: range) -> Frames:
    return [step(worker, session_id, index)[0] for index in chunks]


def equal(left: Frames, right: Frames) -> bool:
    return len(left) == len(right) > 0 and all(map(np.array_equal, left, right))


def test_back_aside_and_on_disk(worker: WorkerHandle, tmp_path: Path) -> None:
    """Rewind, branch, snapshot, and a session opened at each of them: all the same bits."""
    opened = worker.open(request("a"))
    assert (opened.next_chunk, opened.rebuilt) == (0, "")
    light = decode_snapshot(opened.light)
    assert light.weights == worker.info.weights and light.next_chunk == 0
    plain: Frames = []
    for index in range(6):
        frames, kept = step(worker, "a", index)
        light = light.with_chunk(decode_chunk(kept))
        plain.append(frames)
    with pytest.raises(SnapshotError):
        worker.rewind("a", 7)
    path = str(tmp_path / "a.snapshot")
    saved = worker.snapshot("a", path)
    assert (saved.chunk, saved.bytes) == (6, Path(path).stat().st_size)
    rewound = worker.rewind("a", 3)
    assert rewound.chunk == 3 and decode_snapshot(rewound.light).next_chunk == 3
    with pytest.raises(SessionMissingError):
        step(worker, "a", 6)
    assert equal(walk(worker, "a", range(3, 6)), plain[3:])
    branched = worker.branch("a", "b", 1)
    assert branched.session_id == "b" and branched.next_chunk == 1
    assert equal(walk(worker, "b", range(1, 6)), plain[1:])
    assert worker.branch("a", "c").next_chunk == 6
    with pytest.raises(SessionError):
        worker.branch("a", "c")
    counts = worker.counts()
    assert (counts.sessions, counts.parked) == (3, 1)  # "c" has not taken anything yet
    assert counts.moments > 5 and counts.moment_bytes > 0
    assert (counts.rewinds, counts.branches, counts.snapshots, counts.rebuilds) == (1, 2, 1, 0)
    assert counts.rewinds_ms > 0 and counts.branches_ms > 0 and counts.snapshots_ms > 0
    at_file = msgspec.structs.replace(request("d"), snapshot=path)
    assert worker.open(at_file).next_chunk == 6
    at_light = msgspec.structs.replace(request("e", seed=99), light=light.encode())
    again = worker.open(at_light)
    assert (again.next_chunk, again.rebuilt) == (6, "exact")
    assert decode_snapshot(again.light) == light
    seventh = [walk(worker, one, range(6, 7)) for one in "acde"]
    assert all(equal(frames, seventh[0]) for frames in seventh)
    for one in "abcde":
        worker.close(one)
    counts = worker.counts()
    assert (counts.sessions, counts.slots, counts.rings, counts.parked_bytes) == (0, 0, 0, 0)
    assert (counts.moments, counts.moment_bytes) == (0, 0)


def test_what_cannot_be_opened_leaves_nothing(worker: WorkerHandle, tmp_path: Path) -> None:
    light = decode_snapshot(worker.open(request("a")).light)
    light = light.with_chunk(decode_chunk(step(worker, "a", 0)[1]))
    (tmp_path / "torn").write_bytes(b"WLEXACT\n")
    others = msgspec.structs.replace(light, weights="others")
    wide = msgspec.structs.replace(light, window=light.window + 1)
    wanted = request("b")
    cases = [
        (msgspec.structs.replace(wanted, light=others.encode()), OtherWeightsError),
        (msgspec.structs.replace(wanted, light=wide.encode()), SnapshotError),
        (msgspec.structs.replace(wanted, light=light.encode()[:-1]), DamagedSnapshotError),
        (msgspec.structs.replace(wanted, snapshot=str(tmp_path / "torn")), DamagedSnapshotError),
        (msgspec.structs.replace(wanted, snapshot=str(tmp_path / "nothing")), SnapshotError),
        (msgspec.structs.replace(wanted, snapshot="x", light=light.encode()), SnapshotError),
    ]
    for asked, error in cases:
        with pytest.raises(error):
            worker.open(asked)
    with pytest.raises(SnapshotError):
        worker.snapshot("a", str(tmp_path / "nowhere" / "a"))
    for call in (worker.rewind, worker.branch, worker.snapshot):
        with pytest.raises(SessionMissingError):
            call("nobody", 0 if call == worker.rewind else "x")  # type: ignore[arg-type]
    assert worker.counts().sessions == 1
    step(worker, "a", 1)
    worker.close("a")


def test_a_killed_worker_costs_the_chunk_in_flight(worker: WorkerHandle) -> None:
    """The light snapshot of the last chunk opens in another worker, which goes on."""
    worker.open(request("plain"))
    plain = walk(worker, "plain", range(6))
    worker.close("plain")
    first = spawn()
    try:
        light: LightSnapshot = decode_snapshot(first.open(request("a")).light)
        for index in range(4):
            light = light.with_chunk(decode_chunk(step(first, "a", index)[1]))
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError):
            walk(first, "a", range(4, 6))
    finally:
        first.shutdown()
    opened = worker.open(msgspec.structs.replace(request("a"), light=light.encode()))
    assert (opened.next_chunk, opened.rebuilt) == (4, "exact")
    assert equal(walk(worker, "a", range(4, 6)), plain[4:])
    worker.close("a")
