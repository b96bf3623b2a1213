"""What the worker needs of an engine: a loaded model, and its sessions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics
from worldline.core.chunk import Chunk, Decoded
from worldline.core.config import WorldInfo
from worldline.core.lora import Outfit
from worldline.core.motion import Motion, Rig
from worldline.core.snapshot import LightChunk, LightSnapshot
from worldline.runtime.film_calls import FilmWorld
from worldline.runtime.protocol import Counts, Rebuilt


class EngineSession(Protocol):
    """What the worker needs of a session of the engine."""

    width: int
    height: int
    chunk: int
    window: int
    sink: int
    steps: int
    intrinsics: Intrinsics
    rig: Rig
    parked: bool

    def step(
        self,
        controls: tuple[tuple[str, ...], ...] | tuple[Motion, ...],
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
        steps: int | None = None,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
    ) -> Chunk:
        """Generate the next chunk.

        `aborted` is asked between passes, `on_frames` is given what is decoded.
        """
        ...

    def moving(self, *, back: bool = False) -> Iterator[None]:
        """Move all state to host memory, or back, a piece at a time."""
        ...

    def reset(self, seed: int | None = None) -> None:
        """Back to the start picture."""
        ...

    def prepare(self) -> None:
        """Do what the next chunk will need and can be had before its controls are known."""
        ...

    @property
    def next_chunk(self) -> int:
        """The chunk that the next step makes."""
        ...

    def last_chunk(self) -> LightChunk:
        """What the last step adds to a light snapshot."""
        ...

    def light_snapshot(self) -> LightSnapshot:
        """The session as it stands, in kilobytes."""
        ...

    def restoring(self, kept: LightSnapshot) -> Generator[None, None, Rebuilt]:
        """Stand where a light snapshot was taken, a piece at a time."""
        ...

    def rewinding(self, chunk: int) -> Generator[None, None, Rebuilt]:
        """Go back to before a chunk, a piece at a time."""
        ...

    def branching(self, chunk: int | None) -> Generator[None, None, tuple[EngineSession, Rebuilt]]:
        """Another session that stands here, or before a chunk, a piece at a time."""
        ...

    def writing(self, path: str) -> Generator[None, None, int]:
        """Write the session as it stands to a file, a piece at a time; gives the file's bytes."""
        ...

    def close(self) -> None:
        """Drop everything the session holds."""
        ...


class EngineWorld(FilmWorld, Protocol):
    """What the worker needs of a loaded model; `worldline.World` is one."""

    info: WorldInfo

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
    ) -> EngineSession:
        """Start a session."""
        ...

    def reopen(
        self, path: str, *, sharded: bool = True, loras: Outfit | None = None
    ) -> EngineSession:
        """Start a session where one was written to a file, as that was started."""
        ...

    def counts(self) -> Counts:
        """What is held on the device and for parked sessions; it does not know who they are."""
        ...

    def watch(self, entered: Callable[[str], None]) -> None:
        """From now on call `entered` with every stage of a chunk that is begun."""
        ...
