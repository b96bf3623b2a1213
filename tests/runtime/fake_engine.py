"""A tiny engine for the worker process: no torch, frames that say which session made them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import DEFAULT_INTRINSICS, Intrinsics
from worldline.core.chunk import Chunk, Decoded, StageTimings
from worldline.core.config import EngineOptions, WorldInfo
from worldline.core.errors import (
    AbortedError,
    CheckpointError,
    ConfigError,
    ControlError,
    OtherWeightsError,
    PromptError,
    SnapshotError,
)
from worldline.core.film import FilmRequest
from worldline.core.lora import Outfit
from worldline.core.motion import START_POSE, Motion, Rig
from worldline.core.snapshot import LightChunk, LightPrompt, LightSnapshot
from worldline.runtime.film_calls import EngineFilm
from worldline.runtime.protocol import Counts, OpenRequest, Rebuilt, WorkerSettings

WIDTH, HEIGHT, CHUNK = 32, 16, 2
PIECES = 3  # of a session that is moved
SHARED = Path("/dev/shm")
INFO = WorldInfo(
    model="fake",
    family="fake",
    width=WIDTH,
    height=HEIGHT,
    sizes=((WIDTH, HEIGHT),),
    fps=16,
    chunk=CHUNK,
    window=8,
    sink=0,
    steps=1,
    device="cpu",
    dtype="float32",
    mode="exact",
    licence="none",
)


def settings(model: str = "fake") -> WorkerSettings:
    """Settings that load this engine in a worker."""
    return WorkerSettings(model=model, engine="tests.runtime.fake_engine:load", threads=1)


def held(counts: Counts) -> tuple[int, ...]:
    """What is held now, without what has happened so far."""
    return (
        *(counts.sessions, counts.parked, counts.slots, counts.rings, counts.ring_bytes),
        *(counts.parked_bytes, counts.device_bytes, counts.moments, counts.moment_bytes),
    )


def open_request(session_id: str, *, seed: int = 1, chunk: int | None = None) -> OpenRequest:
    """A request for a session with a black picture."""
    return OpenRequest(
        session_id=session_id,
        image=bytes(WIDTH * HEIGHT * 3),
        image_width=WIDTH,
        image_height=HEIGHT,
        prompt="a place",
        seed=seed,
        chunk=chunk,
    )


def shared_names(pid: int | None = None) -> set[str]:
    """Names of frame slots that this process, or process `pid`, has not removed; Linux only."""
    if not SHARED.is_dir():
        return set()
    start = f"worldline-{os.getpid() if pid is None else pid}-"
    return {path.name for path in SHARED.iterdir() if path.name.startswith(start)}


class FakeSession:
    """Every pixel of chunk `i` is `seed + i`; some prompts and actions misbehave on purpose."""

    def __init__(self, seed: int, chunk: int) -> None:
        self.width, self.height, self.chunk = WIDTH, HEIGHT, chunk
        self.window, self.sink, self.steps = INFO.window, INFO.sink, INFO.steps
        self._close_when: Path | None = None
        self._seed = seed
        self._index = 0
        self.intrinsics, self.rig, self.parked = DEFAULT_INTRINSICS, Rig(), False

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
        self.parked = False
        if prompt is not None:
            self._obey(prompt)
        if any(not isinstance(asked, Motion) and "?" in asked for asked in controls or ()):
            raise ControlError("unknown action", expected="one of wasd", got="?")
        if aborted is not None and aborted():
            raise AbortedError("the chunk was given up")
        count = 4 * self.chunk - 3 if self._index == 0 else 4 * self.chunk
        frames: NDArray[np.uint8] = np.full(
            (count, HEIGHT, WIDTH, 3), (self._seed + self._index) % 256, dtype=np.uint8
        )  # F H W 3
        self._index += 1
        poses = (START_POSE,) * self.chunk
        if on_frames is not None:
            for i, part in enumerate(
                np.split(frames, range(count - 4 * (self.chunk - 1), count, 4))
            ):
                on_frames(Decoded(i, max(0, count - 4 * (self.chunk - i)), part, poses[i]))
            if prompt == "fail-late":
                self._index -= 1
                raise RuntimeError("the fake engine was told to fail after its frames")
        return Chunk(self._index - 1, frames, StageTimings(total_ms=1.0), poses)

    def moving(self, *, back: bool = False) -> Iterator[None]:
        """Be parked, or back, after some pieces."""
        for _ in range(PIECES):
            yield
        self.parked = not back

    def reset(self, seed: int | None = None) -> None:
        """Begin again."""
        self._index, self._seed = 0, self._seed if seed is None else seed

    def _obey(self, prompt: str) -> None:
        """Prompts are orders: what a session does before its next chunk, or when it closes."""
        order, _, rest = prompt.partition(" ")
        if order == "raise":
            raise RuntimeError("the fake engine was told to fail")
        if order == "refuse":
            raise PromptError("too long", expected="less", got="more")
        if order == "exit":
            os._exit(7)
        if order == "wait":
            started(Path(rest)).touch()
            wait_for_file(Path(rest))
        if order == "environment":
            Path(rest).write_text(json.dumps(dict(os.environ)))
        if order == "slow-close":
            self._close_when = Path(rest)

    @property
    def next_chunk(self) -> int:
        """The chunk that the next step makes."""
        return self._index

    def last_chunk(self) -> LightChunk:
        """A chunk of nothing."""
        return LightChunk(
            index=self._index - 1,
            frames=self.chunk,
            latents=bytes(16 * (WIDTH // 8) * (HEIGHT // 8) * self.chunk * 4),
            relative=bytes(64 * self.chunk),
            keys=bytes(16 * self.chunk),
            poses=(START_POSE,) * self.chunk,
            prompt=LightPrompt("a place"),
        )

    def light_snapshot(self) -> LightSnapshot:
        """Seed and place are all that counts."""
        light = LightSnapshot(
            weights="fake",
            seed=self._seed,
            width=WIDTH,
            height=HEIGHT,
            chunk=self.chunk,
            window=self.window,
            sink=self.sink,
            history=1,
            prompt=LightPrompt("a place"),
        )
        index = self._index
        for self._index in range(1, index + 1):
            light = light.with_chunk(self.last_chunk())
        self._index = index
        return light

    def restoring(self, kept: LightSnapshot) -> Generator[None, None, Rebuilt]:
        """Stand there after some pieces; other weights are refused after the first."""
        yield
        if kept.weights != "fake":
            raise OtherWeightsError("other weights", expected="fake", got=kept.weights)
        self._seed, self._index = kept.seed, kept.next_chunk
        yield
        return "exact"

    def rewinding(self, chunk: int) -> Generator[None, None, Rebuilt]:
        """Go back after some pieces."""
        if not 0 <= chunk <= self._index:
            raise SnapshotError("no such place in the walk", got=chunk)
        for _ in range(PIECES):
            yield
        self._index = chunk
        return "exact"

    def branching(self, chunk: int | None) -> Generator[None, None, tuple[FakeSession, Rebuilt]]:
        """Another one that stands here, or earlier."""
        made = FakeSession(self._seed, self.chunk)
        made._index = self._index
        if chunk is not None:
            yield from made.rewinding(chunk)
        yield
        return made, ""

    def writing(self, path: str) -> Generator[None, None, int]:
        """Seed and place, some pieces later."""
        data = f"{self._seed} {self._index}"
        for _ in range(PIECES):
            yield
        if "/nowhere/" in path:
            raise SnapshotError("the snapshot cannot be written", got=path)
        return Path(path).write_text(data)

    def prepare(self) -> None:
        """The worker calls this between chunks; what fails here is found again by `step`."""
        raise RuntimeError("nothing to prepare")

    def close(self) -> None:
        """Drop nothing; where told so, not before a file exists."""
        if self._close_when is not None:
            wait_for_file(self._close_when)
            self._close_when.with_suffix(".closed").touch()


def wait_for_file(path: Path) -> None:
    """Block until `path` exists: how a test holds the worker at a known point."""
    while not path.exists():
        time.sleep(0.005)


def started(path: Path) -> Path:
    """The file that says the worker has reached its wait for `path`."""
    return path.with_suffix(".started")


class FakeWorld:
    """Starts fake sessions."""

    info = INFO

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
        assert image.dtype == np.uint8 and image.shape[2] == 3
        return FakeSession(seed, CHUNK if chunk is None else chunk)

    def reopen(
        self, path: str, *, sharded: bool = True, loras: Outfit | None = None
    ) -> FakeSession:
        """A session at the seed and place of a file."""
        seed, index = Path(path).read_text().split()
        made = FakeSession(int(seed), CHUNK)
        made._index = int(index)
        return made

    def counts(self) -> Counts:
        """Nothing is held."""
        return Counts()

    def watch(self, entered: Callable[[str], None]) -> None:
        """There are no stages."""

    def film(
        self, request: FilmRequest, image: NDArray[np.uint8], *, folder: Path | None
    ) -> EngineFilm:
        """There are none."""
        raise ConfigError("no films here")


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
) -> FakeWorld:
    """Load nothing, or fail in the way the model's name asks for."""
    if model == "broken":
        raise CheckpointError("the checkpoint is torn", expected="10 bytes", got="3 bytes")
    if model == "dies":
        os._exit(9)
    progress(1, 2, "weights")
    progress(2, 2, "weights")
    return FakeWorld()
