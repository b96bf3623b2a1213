"""`worldline bench snapshots`: what going back, branching and parking take, in bytes and in ms.

One world is walked past its window, then everything that can be done with its past is done and
timed, each thing several times; after each of them the next chunk must have the bits it had.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from worldline.bench.machine import Machine, describe_machine
from worldline.core.snapshot import LightSnapshot, decode_snapshot
from worldline.runtime.protocol import Rebuilt

if TYPE_CHECKING:
    from worldline.runtime.engine import World
    from worldline.runtime.session import Session

TIMED = (
    "chunk",
    "snapshot",
    "restore",
    "branch",
    "park",
    "unpark",
    "rewind",
    "light",
    "rebuilt",
    "save",
    "reopen",
)
TIMES = 5  # of each thing; the median counts
PROMPT = "a court of tall columns"


class SnapshotFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and milliseconds of one of each thing.

    A `moment` is an exact snapshot alone, `moment_more` what each chunk adds to those there are;
    `frame` is one latent frame of it. `rewind` is to a moment, `walked` per chunk that is made
    again from its latents, `rebuilt` a whole window from a light snapshot, `exact` says whether the
    latter was. `equal`: every chunk after any of this had the bits it had before.
    """

    model: str
    machine: Machine
    width: int
    height: int
    chunk: int
    window: int
    chunks: int
    chunk_ms: float
    frame_bytes: int
    moment_bytes: int
    moment_more_bytes: int
    light_bytes: int
    file_bytes: int
    snapshot_ms: float
    restore_ms: float
    branch_ms: float
    park_ms: float
    unpark_ms: float
    rewind_ms: float
    walked_ms: float
    light_ms: float
    rebuilt_ms: float
    rebuilt_exact: bool
    save_ms: float
    reopen_ms: float
    equal: bool


class _Walk:
    """A session, what it showed, and how long things took."""

    def __init__(self, world: World, chunks: int) -> None:
        self.world = world
        self.session = self.begin()
        self.shown: list[NDArray[np.uint8]] = []
        self.took: dict[str, list[float]] = {}
        self.equal = True
        for _ in range(chunks):
            with self.timed("chunk"):
                self.shown.append(self.session.step(keys(self.session)).frames)
            self.session.prepare()

    def begin(self) -> Session:
        """Another session of the same start."""
        info = self.world.info
        noise = np.random.default_rng(0)
        picture = noise.integers(0, 256, (info.height, info.width, 3), dtype=np.uint8)
        return self.world.start(picture, PROMPT, 1)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time something, to its end on the device."""
        device = self.world.components.dit.device
        start = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.took.setdefault(name, []).append((time.perf_counter() - start) * 1000)

    def check(self, session: Session) -> None:
        """The next chunk has the bits it had."""
        place = session.next_chunk
        self.equal &= np.array_equal(session.step(keys(session)).frames, self.shown[place])

    def ms(self, name: str) -> float:
        """The median of all times of something."""
        return round(statistics.median(self.took[name]), 3)


def keys(session: Session) -> list[tuple[str, ...]]:
    """What is held in the next chunk."""
    return [("wasd"[session.next_chunk % 4], "l")] * session.chunk


def measure_snapshots(world: World, *, chunks: int = 0) -> SnapshotFigures:
    """Walk `chunks`, three windows by default, and measure."""
    info = world.info
    place = chunks or max(8, 3 * max(info.window, info.chunk) // info.chunk)
    walk = _Walk(world, place + 1)
    session = walk.session
    moment_more = _moment_more(session)
    for _ in range(TIMES):
        _go(walk, place)
    session.rewind(chunk=place)
    light, kept = session.snapshot(light=True), session.snapshot()
    size = _disk(walk)
    rebuilt = _rebuild(walk, light)
    session.close()
    return SnapshotFigures(
        model=info.model,
        machine=describe_machine(),
        width=session.width,
        height=session.height,
        chunk=session.chunk,
        window=session.window,
        chunks=place,
        frame_bytes=max(page.nbytes for page in kept.moment.pages),
        moment_bytes=kept.nbytes,
        moment_more_bytes=moment_more,
        light_bytes=len(light.encode()),
        file_bytes=size,
        walked_ms=round(walk.ms("walked") / place, 3),
        rebuilt_exact=rebuilt == "exact",
        equal=walk.equal,
        **{f"{name}_ms": walk.ms(name) for name in TIMED},
    )


def _moment_more(session: Session) -> int:
    """What the moments of a walk take, each beside the one before."""
    timeline = session.state.timeline
    assert timeline is not None, "every session of a world has one"
    first, number = timeline.moments[0].nbytes, len(timeline.moments)
    return (timeline.moment_bytes - first) // max(1, number - 1)


def _go(walk: _Walk, place: int) -> None:
    """Once everything after which the chunk of a place can be made again."""
    session = walk.session
    session.rewind(chunk=place - 1)
    walk.check(session)
    with walk.timed("snapshot"):
        kept = session.snapshot()
    walk.check(session)
    with walk.timed("restore"):
        session.restore(kept)
    with walk.timed("branch"):
        branch = session.branch()[0]
    walk.check(branch)
    branch.close()
    with walk.timed("park"):
        session.park()
    with walk.timed("unpark"):
        session.unpark()
    walk.check(session)
    with walk.timed("rewind"):
        session.rewind(chunk=place)
    walk.check(session)
    timeline = session.state.timeline
    assert timeline is not None, "every session of a world has one"
    timeline.forget_moments()
    with walk.timed("walked"):
        session.rewind(chunk=place)
    walk.check(session)


def _disk(walk: _Walk) -> int:
    """Bytes of a file that was written and opened again."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "snapshot")
        with walk.timed("save"):
            size = walk.session.save(path)
        with walk.timed("reopen"):
            again = walk.world.reopen(path)
        walk.check(again)
        again.close()
    return size


def _rebuild(walk: _Walk, light: LightSnapshot) -> Rebuilt:
    """How a session that has just begun was brought to a light snapshot's place."""
    with walk.timed("light"):
        light = decode_snapshot(light.encode())
    fresh = walk.begin()
    with walk.timed("rebuilt"):
        rebuilt = fresh.restore(light)
    if rebuilt == "exact":
        walk.check(fresh)
    fresh.close()
    return rebuilt


def as_table(figures: SnapshotFigures) -> str:
    """The figures as lines of text."""
    where, f = figures.machine, figures
    bits = "the same bits after each of them" if f.equal else "OTHER BITS"
    how = "exact" if f.rebuilt_exact else "from its window"
    return "\n".join(
        [
            f"{f.model} {f.width}x{f.height}, chunk {f.chunk}, window {f.window}, "
            f"{f.chunks} chunks of {f.chunk_ms:.1f} ms: {bits}",
            f"on {where.accelerator or where.processor}, {where.threads} threads, "
            f"torch {where.torch}, commit {where.commit}",
            f"bytes     exact {f.moment_bytes:,}, each further chunk {f.moment_more_bytes:,}, "
            f"a latent frame {f.frame_bytes:,}; light {f.light_bytes:,}; file {f.file_bytes:,}",
            f"snapshot  {f.snapshot_ms:.2f} ms, restore {f.restore_ms:.2f}, "
            f"branch {f.branch_ms:.2f}, light {f.light_ms:.2f}",
            f"parking   {f.park_ms:.2f} ms away, {f.unpark_ms:.2f} back",
            f"rewind    {f.rewind_ms:.2f} ms to a moment, {f.walked_ms:.2f} per chunk made again",
            f"rebuilt   {f.rebuilt_ms:.1f} ms from a light snapshot, {how}",
            f"on disk   {f.save_ms:.1f} ms written, {f.reopen_ms:.1f} opened",
        ]
    )
