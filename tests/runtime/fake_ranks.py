"""The fake engine as one of several ranks: no torch, no collectives, and orders for single ranks.

Prompts are orders, as in `fake_engine`; `rank1 exit now` is one for rank 1 only. With the model
`note FILE` every rank writes down all it is asked to do, in `FILE.rank`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.runtime import fake_engine
from tests.runtime.fake_engine import CHUNK, FakeSession, FakeWorld
from worldline.core.camera import Intrinsics
from worldline.core.chunk import Chunk, Decoded
from worldline.core.config import EngineOptions
from worldline.core.errors import CheckpointError, WorkerDiedError
from worldline.core.motion import START_POSE, Motion, Pose, Rig
from worldline.runtime.protocol import WorkerSettings


def settings(ranks: int, model: str = "fake") -> WorkerSettings:
    """Settings that load this engine in so many ranks."""
    return WorkerSettings(
        model=model,
        engine="tests.runtime.fake_ranks:load",
        join="tests.runtime.fake_ranks:join",
        devices=("cpu",) * ranks,
        threads=1,
    )


class FakeGroup:
    """Ranks that meet by files."""

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._folder = folder

    def meet(self) -> None:
        """Go on once every rank is here."""
        (self._folder / f"here-{self.rank}").touch()
        for rank in range(self.size):
            fake_engine.wait_for_file(self._folder / f"here-{rank}")


def join(address: str, *, rank: int, size: int, device: str) -> FakeGroup:
    """What the worker calls in every rank."""
    assert device == "cpu"
    return FakeGroup(Path(address.removeprefix("file://")).parent, rank, size)


class RankSession(FakeSession):
    """Does as a rank what it is told; `drift` makes it say that the camera went elsewhere."""

    def __init__(self, world: RankWorld, seed: int, chunk: int) -> None:
        super().__init__(seed, chunk)
        self._world = world
        world.note(f"start {seed}")

    def step(
        self,
        controls: Sequence[Collection[str]] | Sequence[Motion] | None = None,
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
        steps: int | None = None,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
    ) -> Chunk:
        self._world.note(f"step {self._index} {controls} {prompt} {blend_chunks} {steps}")
        order = None
        if prompt is not None:
            name, _, order = prompt.partition(" ")
            if name.startswith("rank"):
                order = order if name == f"rank{self._world.group.rank}" else None
            else:
                order = prompt
        if order == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if order == "left alone":
            raise WorkerDiedError("another rank is gone")
        chunk = super().step(controls, prompt=order, aborted=aborted, on_frames=on_frames)
        if order == "drift":
            chunk = chunk._replace(poses=(Pose(START_POSE.c2w, yaw=1.0), *chunk.poses[1:]))
        return chunk

    def moving(self, *, back: bool = False) -> Iterator[None]:
        for piece in super().moving(back=back):
            self._world.note(f"move {back}")
            yield piece

    def reset(self, seed: int | None = None) -> None:
        self._world.note(f"reset {seed}")
        super().reset(seed)

    def prepare(self) -> None:
        self._world.note("prepare")

    def close(self) -> None:
        self._world.note("close")
        super().close()


class RankWorld(FakeWorld):
    """Starts sessions that know which rank they are on."""

    def __init__(self, group: FakeGroup, notes: Path | None) -> None:
        self.group = group
        self._notes = None if notes is None else notes.with_suffix(f".{group.rank}").open("a")

    def note(self, what: str) -> None:
        if self._notes is not None:
            print(what, file=self._notes, flush=True)

    def start(
        self,
        image: NDArray[np.uint8],
        prompt: str,
        seed: int = 42,
        *,
        width: int | None = None,
        height: int | None = None,
        chunk: int | None = None,
        window: int | None = None,
        sink: int | None = None,
        shift: float | None = None,
        steps: int | None = None,
        intrinsics: Intrinsics | None = None,
        rig: Rig | None = None,
        loras: tuple[tuple[str, float], ...] | None = None,
        sharded: bool = True,
    ) -> FakeSession:
        self.note(f"picture {image.sum()} {prompt}")
        return RankSession(self, seed, CHUNK if chunk is None else chunk)


def load(
    model: str,
    *,
    device: str,
    dtype: str | None,
    mode: str,
    random_weights: bool,
    threads: int | None,
    options: EngineOptions,
    progress: Callable[[int, int, str], None],
    group: FakeGroup,
) -> FakeWorld:
    """Load nothing; the model's name may ask one rank to fail."""
    order, _, rest = model.partition(" ")
    if order == f"broken{group.rank}":
        raise CheckpointError("the checkpoint is torn", expected="10 bytes", got=rest)
    if order == f"dies{group.rank}":
        os._exit(9)
    progress(1, 1, "weights")
    return RankWorld(group, Path(rest) if order == "note" else None)
