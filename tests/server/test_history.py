"""What the server remembers of a walk, and how a snapshot of it is made smaller when it grows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import FakeClock, FakeHandle
from tests.server.live.wire import wish
from worldline.core.config import ServerConfig
from worldline.core.motion import Motion
from worldline.core.snapshot import LightSnapshot, decode_snapshot
from worldline.runtime.protocol import OpenRequest, RewoundReply, StepRequest
from worldline.server import history
from worldline.server.history import History
from worldline.server.live.saves import MOST_OF_A_WORLD, Saves

ENTER = wish()


def walk(handle: FakeHandle, told: History, first: int, count: int) -> None:
    """So many chunks of the session `one`."""
    for chunk in range(first, first + count):
        step = StepRequest(
            session_id="one", chunk_index=chunk, motions=(Motion(z=chunk / 100),) * 3, keep=True
        )
        result = handle.step(step)
        told.made(step, result)
        result.release()


def begun(handle: FakeHandle) -> History:
    request = OpenRequest(
        session_id="one", image=b"\0" * 12, image_width=2, image_height=2, prompt="a lake"
    )
    told = History("a lake")
    told.opened(handle.open(request))
    return told


def light(told: History) -> LightSnapshot:
    assert told.light is not None
    return told.light


def test_the_snapshot_is_whole_until_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = FakeHandle()
    told = begun(handle)
    walk(handle, told, 0, 8)
    assert light(told).is_whole
    assert told.nbytes == light(told).nbytes > 0
    monkeypatch.setattr(history, "WHOLE_BYTES", told.nbytes)
    walk(handle, told, 8, 1)
    assert not light(told).is_whole
    assert light(told).next_chunk == told.place == 9
    assert decode_snapshot(light(told).encode()) == light(told)
    assert told.exact  # nothing has come back from it yet


def test_only_so_much_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = FakeHandle()
    told = begun(handle)
    assert told.to_open is None  # from the start
    walk(handle, told, 0, 8)
    assert told.to_open == light(told)
    monkeypatch.setattr(history, "REBUILD_S", 0.0)
    trimmed = told.to_open
    assert trimmed is not None and not trimmed.is_whole
    assert len(trimmed.chunks) < len(light(told).chunks) == 8
    assert decode_snapshot(trimmed.encode()) == trimmed


def test_going_back_keeps_a_snapshot_of_that_place() -> None:
    handle = FakeHandle()
    told = begun(handle)
    walk(handle, told, 0, 6)
    before = light(told)
    told.rewound(handle.rewind("one", 2))
    assert (told.place, light(told).next_chunk, light(told).is_whole) == (2, 2, True)
    walk(handle, told, 2, 4)
    assert light(told) == before


def test_what_came_back_from_a_window_alone_has_no_digests() -> None:
    handle = FakeHandle()
    told = begun(handle)
    walk(handle, told, 0, 3)
    handle.rewind("one", 1)
    told.rewound(RewoundReply(session_id="one", chunk=1, rebuilt="window"))
    assert not told.exact
    walk_on = StepRequest(session_id="one", chunk_index=1, motions=(Motion(),) * 3)
    result = handle.step(walk_on)
    made = told.made(walk_on, result)
    result.release()
    told.hashed(1, made, b"x" * 16)
    assert told.steps[1].digest == b""
    told.restart(None)
    assert told.exact


def test_a_digest_of_what_was_taken_back_is_not_kept() -> None:
    handle = FakeHandle()
    told = begun(handle)
    walk(handle, told, 0, 2)
    old = told.steps[1]
    told.rewound(handle.rewind("one", 1))
    walk(handle, told, 1, 1)
    told.hashed(1, old, b"x" * 16)
    assert told.steps[1].digest == b""
    told.hashed(1, told.steps[1], b"y" * 16)
    assert told.steps[1].digest == b"y" * 16


def test_a_branch_forgets_what_comes_after_it() -> None:
    handle = FakeHandle()
    told = begun(handle)
    walk(handle, told, 0, 4)
    branch = told.branch(2)
    assert (branch.place, light(branch).next_chunk, told.place) == (2, 2, 4)
    assert branch.steps == told.steps[:2]


def saves(**settings: Any) -> tuple[Saves, FakeClock]:
    clock = FakeClock()
    return Saves(ServerConfig(**settings), clock), clock


def test_saved_files_are_few_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, clock = saves(recording_keep_s=10.0)
    files = [kept.put("one", bytes([i])) for i in range(MOST_OF_A_WORLD + 1)]
    assert kept.find("one", files[0].number) is None
    assert kept.find("one", files[1].number) == files[1]
    assert kept.find("two", files[1].number) is None
    monkeypatch.setattr("worldline.server.live.saves.MOST_BYTES", 20)
    other = kept.put("two", b"0123456789")
    assert (kept.bytes, len(kept)) == (20, 11)
    assert kept.find("two", other.number) == other
    clock._now += 10.5
    assert kept.find("two", other.number) is None
    assert len(kept) == 0
