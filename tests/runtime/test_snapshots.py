"""Going back, and trying the other way: every bit is as it was, at every boundary of a pass.

`WORLDLINE_ALL_WORLDS=1 python -m pytest tests/runtime/test_snapshots.py` does so in worlds of every
kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import AbortedError, ConfigError, OtherWeightsError, SnapshotError
from worldline.core.snapshot import decode_chunk, decode_snapshot
from worldline.models.lingbot.dit import TimeTables
from worldline.runtime.conditions import Controls, encode_picture
from worldline.runtime.engine import World
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.paged_ring import PagedRing, needed_frames
from worldline.runtime.pages import Page
from worldline.runtime.passes import ChunkInputs, Passes
from worldline.runtime.session import Session
from worldline.runtime.travels import at_once
from worldline.runtime.tree import tensors_of

ONE: list[Controls] = [[("w", "l")], None, [("s",)]]  # for chunks of one latent frame
ALL = bool(os.environ.get("WORLDLINE_ALL_WORLDS"))
ROOM = 3_000_000  # bytes: some moments and all records
ROOM_FOR_26 = 40_000  # records of one latent frame each, and no moment
WALKS: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
OTHER: list[Controls] = [[("a", "j")] * 3, [("d",), ("d",), ("i",)]]
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},  # a window of 7: the ring wraps in the third chunk
    "int8": {"options": EngineOptions(kv="8bit")},
    "growing": {"window": -1, "sink": 0},
    "recached": {"options": EngineOptions(recache=True)},
    "reanchored": {"reanchor_at": 9},
    "still": {"options": EngineOptions(lossy=("still_window=5",))},
    "sink moved": {"options": EngineOptions(lossy=("sink_distance=10",))},
    "in order": {"without": ("ring_order",)},
}


def start(world: World, seed: int = 3, *, steps: int = 1, chunk: int = 3) -> Session:
    return world.start(tiny.picture(), tiny.PROMPT, seed, steps=steps, chunk=chunk)


def walk(
    session: Session, chunks: range, *, controls: Sequence[Controls] = WALKS
) -> list[NDArray[np.uint8]]:
    """Chunk after chunk, with a blend of prompts on the way."""
    made = []
    for i in chunks:
        assert session.next_chunk == i
        prompt = "a frozen lake at night" if i == 2 else None
        made.append(session.step(controls[i % len(controls)], prompt=prompt, blend_chunks=2).frames)
    return made


class Watched:
    """Passes that keep everything that goes in and out of each of them."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self.seen: list[Tensor] = []

    @property
    def eager(self) -> Passes:
        return self

    def camera(self, embedding: Tensor) -> Any:
        return self._passes.camera(embedding)

    def denoise(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> Tensor:
        flow = self._passes.denoise(x, time=time, inputs=inputs, kv=kv)
        self.seen += [x.clone(), flow.clone(), *self._ring(kv)]
        return flow

    def commit(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> None:
        self._passes.commit(x, time=time, inputs=inputs, kv=kv)
        self.seen += [x.clone(), *self._ring(kv)]

    def forget(self, kv: FrameRing) -> None:
        self._passes.forget(kv)

    def _ring(self, kv: FrameRing) -> Iterator[Tensor]:
        """Keys and values that can be attended to."""
        for layer in range(kv.params.layers):
            yield from (part.clone() for part in kv.restore(layer, kv.visible_tokens))


def watch(world: World) -> Watched:
    """From now on everything is seen."""
    passes = Watched(world.shared.passes)
    world.shared = world.shared._replace(passes=passes)
    return passes


def same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(
        torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("name", list(WORLDS) if ALL else ["plain", "recached", "sink moved"])
def test_five_chunks_again_are_the_same_at_every_pass(name: str) -> None:
    """Across the ring's wrap, a blend, and whatever else this world does on its way."""
    world = tiny.world(**WORLDS[name])
    passes = watch(world)
    with start(world, steps=2) as session:
        walk(session, range(1))
        kept = session.snapshot()
        passes.seen.clear()
        first, seen = walk(session, range(1, 6)), list(passes.seen)
        if name in ("plain", "int8", "growing"):
            session.park()
        session.restore(kept)
        assert session.next_chunk == 1
        passes.seen.clear()
        again = walk(session, range(1, 6))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert same(seen, passes.seen)


@pytest.mark.parametrize("name", list(WORLDS) if ALL else ["recached", "reanchored"])
def test_rewinding_anywhere_gives_every_bit_back(name: str) -> None:
    """To moments, and between them by context passes: there is room for some of them only."""
    world = tiny.world(**WORLDS[name])
    world.shared = world.shared._replace(timeline_bytes=ROOM)
    with start(world) as session:
        plain = walk(session, range(8))
        timeline = session.state.timeline
        assert timeline is not None and 0 < len(timeline.moments) < 6
        assert timeline.moment_bytes + timeline.record_bytes <= timeline.limit
        between = max(set(range(1, 7)) - {one.next_chunk for one in timeline.moments})
        assert at_once(session.rewinding(between)) == "exact"
        again = walk(session, range(between, between + 2))
        assert equal(again, plain[between : between + 2])
        last = session.state.timeline
        assert last is not None
        there = last.moments[-1].next_chunk
        assert at_once(session.rewinding(there)) == ""
        assert equal(walk(session, range(there, there + 1)), plain[there : there + 1])
        assert session.rewind(chunk=0) == 0
        assert equal(walk(session, range(1)), plain[:1])


def equal(left: list[NDArray[np.uint8]], right: list[NDArray[np.uint8]]) -> bool:
    return len(left) == len(right) > 0 and all(map(np.array_equal, left, right))


def test_an_abort_at_any_pass_is_forgotten() -> None:
    """Snapshot, a chunk given up after so many passes, restore or not: the same chunk follows."""
    with start(tiny.world()) as session:
        plain = walk(session, range(5))
    session = start(tiny.world())
    walk(session, range(4))
    kept = session.snapshot()
    for passes in range(3):
        asked = iter([False] * (passes + 1) + [True])
        with pytest.raises(AbortedError):
            session.step(OTHER[0], prompt="snow", aborted=lambda asked=asked: next(asked))
        again = session.snapshot()  # of a ring whose next slots hold half a chunk
        if passes != 1:
            session.restore(again if passes else kept)
        assert np.array_equal(session.step(WALKS[1]).frames, plain[4])
        session.restore(again)


def test_two_branches_are_what_their_paths_are_from_the_start() -> None:
    """Stepped in turns, parked in between, both past the ring's wrap; so is the one they left."""

    def path(ways: Sequence[Sequence[Controls]]) -> list[NDArray[np.uint8]]:
        with start(tiny.world(reanchor_at=12)) as session:
            made = walk(session, range(3))
            for i, controls in enumerate(ways):
                made += walk(session, range(3 + i, 4 + i), controls=controls)
            return made

    left, right = path([OTHER] * 4), path([WALKS] * 2 + [OTHER] * 2)
    world = tiny.world(reanchor_at=12)
    session = start(world)
    walk(session, range(3))
    branches = session.branch(2)
    assert all(one.parked and one.next_chunk == 3 for one in branches)
    assert len({one.state.session_id for one in (session, *branches)}) == 3
    for i in range(3, 7):
        a = walk(branches[0], range(i, i + 1), controls=OTHER)[0]
        branches[i % 2].park()
        b = walk(branches[1], range(i, i + 1), controls=WALKS if i < 5 else OTHER)[0]
        assert np.array_equal(a, left[i]) and np.array_equal(b, right[i])
    session.close()  # branches need nothing of it
    early = branches[0].branch(chunk=1)[0]
    assert np.array_equal(walk(early, range(1, 3))[1], left[2])
    early.reset()
    assert np.array_equal(walk(early, range(1))[0], left[0])
    for one in (*branches, early):
        one.close()
    counts = world.counts()
    assert (counts.rings, counts.parked_bytes, counts.moments, counts.moment_bytes) == (0, 0, 0, 0)
    assert len(world.shared.ledger) == 0


def test_a_hundred_branches_take_what_differs() -> None:
    """Bytes of the host: all of them hold the same until each walks a chunk of its own."""
    world = tiny.world(options=EngineOptions(timeline_mb=0))
    session = world.start(tiny.picture(), tiny.PROMPT, 3, steps=1, chunk=1)
    for _ in range(8):
        session.step()
    image = session.state.image
    encode_picture(world.shared.vae, image, 40, None)  # else each branch would go on with that
    ring = session.state.kv
    page, needed = ring.page_bytes, len(needed_frames(ring, ring.end, 1))
    session.park()
    alone = world.counts().parked_bytes
    branches = session.branch(100)
    assert world.counts().rings == 0, "nothing of the device"
    assert world.counts().parked_bytes == alone, "what there is, is there once"
    walking = branches if ALL else branches[::4]
    for i, branch in enumerate(walking):
        branch.step([("wasd"[i % 4], "ijkl"[i // 4 % 4])])
        branch.park()
    grown = world.counts().parked_bytes - alone
    decoder = sum(t.nbytes for t in tensors_of(session.state.decoder))
    # One latent frame each, and what the decoder remembers; of the frames before, no copy.
    assert grown == len(walking) * (page + decoder)
    frames = {id(page) for branch in branches for page in pages_of(branch)}
    resting = len(walking) < len(branches)  # those still hold the oldest frame
    assert len(frames) == len(walking) + needed - 1 + resting
    for branch in (session, *branches):
        branch.close()
    assert world.counts().parked_bytes == 0


def pages_of(session: Session) -> list[Page]:
    assert isinstance(session.state.kv, PagedRing)
    return list(session.state.kv.pages)


def test_light_ones_are_exact_while_they_reach_back_to_the_start() -> None:
    """And come near, and say so, when the window alone is left. With a blend on the way."""
    with start(tiny.world()) as session:
        light = [session.snapshot(light=True)]
        plain = []
        for i in range(12):
            plain += walk(session, range(i, i + 1))
            light.append(light[-1].with_chunk(decode_chunk(session.last_chunk().encode())))
            assert light[-1] == session.snapshot(light=True)
    assert [one.is_whole for one in light].index(False) == 9
    for place, how in ((0, ""), (3, "exact"), (8, "exact"), (10, "window")):
        with start(tiny.world(), seed=77) as other:
            kept = decode_snapshot(light[place].encode())
            assert other.restore(kept) == how
            assert other.next_chunk == place and other.snapshot(light=True) == kept
            again = walk(other, range(place, place + 2))
            if how != "window":
                assert all(np.array_equal(a, b) for a, b in zip(again, plain[place:], strict=False))
                continue
            off = np.abs(again[0].astype(int) - plain[place]).mean()
            apart = np.abs(plain[place - 1].astype(int) - plain[place]).mean()
            assert 0 < off < apart / 2


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    session, other = start(tiny.world()), tiny.world(seed=1)
    other.shared = other.shared._replace(weights="others")
    plain = walk(session, range(2))
    strange = start(other)
    walk(strange, range(1))
    small = tiny.world().start(tiny.picture(), tiny.PROMPT, chunk=1)
    for kept, error in (
        (strange.snapshot(), OtherWeightsError),
        (strange.snapshot(light=True), OtherWeightsError),
        (small.snapshot(), SnapshotError),
        (small.snapshot(light=True), SnapshotError),
    ):
        with pytest.raises(error):
            session.restore(kept)
    for chunk in (-1, 3, 2**40):
        with pytest.raises(SnapshotError):
            session.rewind(chunk=chunk)
        with pytest.raises(SnapshotError):
            session.branch(chunk=chunk)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SnapshotError):
            session.rewind(seconds)
    with pytest.raises(ConfigError):
        session.rewind()
    with pytest.raises(ConfigError):
        session.branch(0)
    third = walk(session, range(2, 3))[0]
    assert session.rewind(0.1) == 2, "a chunk is 12 pictures of a sixteenth of a second"
    assert np.array_equal(walk(session, range(2, 3))[0], third)
    assert session.rewind(1.6) == 0
    assert np.array_equal(walk(session, range(1))[0], plain[0])


def test_a_place_that_was_forgotten_is_made_from_its_window_or_refused() -> None:
    """A walk so long that its first chunks have left the timeline."""
    world = tiny.world()
    world.shared = world.shared._replace(timeline_bytes=ROOM_FOR_26)
    with start(world, chunk=1) as session:
        plain = walk(session, range(45), controls=ONE)
        timeline = session.state.timeline
        assert timeline is not None and timeline.record_bytes <= ROOM_FOR_26
        first = min(record.chunk for record in timeline.records if record.chunk > 1)
        assert first > 5 and timeline.records[0].chunk == 0, "the sink's stay"
        with pytest.raises(SnapshotError):
            session.rewind(chunk=first)
        branch = session.branch()[0]
        assert np.array_equal(branch.step(ONE[0]).frames, session.step(ONE[0]).frames)
        assert at_once(session.rewinding(44)) == "window" and session.next_chunk == 44
        frames = session.step(ONE[44 % 3]).frames
        assert np.abs(frames.astype(int) - plain[44]).mean() < 40
        assert session.rewind(chunk=0) == 0
        assert np.array_equal(walk(session, range(1), controls=ONE)[0], plain[0])


def test_sessions_share_the_room_for_moments() -> None:
    """Each from its next chunk on; nothing that can be gone back to is lost by that."""
    world = tiny.world()
    world.shared = world.shared._replace(timeline_bytes=6 * 700_000)
    session = start(world)
    plain = walk(session, range(7))
    alone = world.counts()
    assert 4 <= alone.moments <= 6 and alone.moment_bytes <= 6 * 700_000
    others = [start(world, seed) for seed in (4, 5)]
    for other in others:
        walk(other, range(5))
    session.step()
    counts = world.counts()
    assert counts.moments <= 6 and counts.moment_bytes <= 6 * 700_000
    assert session.rewind(chunk=1) == 1
    assert equal(walk(session, range(1, 3)), plain[1:3])


def test_a_recording_is_of_the_path_that_was_kept() -> None:
    """Of a session that went back, of its branch, and of one that was restored."""
    world = tiny.world()
    session = world.start(tiny.picture(), tiny.PROMPT, 3, steps=1, keep_latents=True)
    shown = walk(session, range(4))
    kept = session.snapshot()
    session.rewind(chunk=2)
    branch = session.branch()[0]
    shown[2:] = walk(session, range(2, 4), controls=OTHER)
    assert equal(list(session.recording()), shown)
    assert equal(list(branch.recording()), shown[:2])
    session.restore(kept)
    again = list(session.recording())
    assert len(again) == 4 and not np.array_equal(again[2], shown[2])
    light = kept.timeline.records
    assert [record.chunk for record in light] == [0, 1, 2, 3]
