"""Collects a walk while it is walked, chunk by chunk, so that it can be saved at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from worldline.core.motion import Motion
from worldline.core.walk import (
    DIGEST_BYTES,
    MadeWith,
    PromptAt,
    Run,
    Stepped,
    StepsAt,
    Walk,
    WorldFile,
    WorldStart,
)
from worldline.core.worldfile import write_world

Control = Motion | str | None


class Walked:
    """The walk so far: what each finished chunk was asked for. Not thread-safe; touches no disk."""

    def __init__(self, start: WorldStart, made: MadeWith, chunks: Iterable[Stepped] = ()) -> None:
        self.start = start
        self.made = made
        self._chunks = list(chunks)

    @classmethod
    def of(cls, file: WorldFile) -> Walked:
        """Go on from a file's end."""
        return cls(file.start, file.made, file.chunks())

    def __len__(self) -> int:
        """Chunks so far."""
        return len(self._chunks)

    @property
    def prompt(self) -> str:
        """The text in force, or where a blend is heading."""
        said = (chunk.prompt for chunk in reversed(self._chunks) if chunk.prompt is not None)
        return next(said, self.start.prompt)

    def add(self, chunk: Stepped) -> None:
        """A chunk is finished."""
        kinds = (chunk.motions, chunk.actions, chunk.poses)
        asked = [kind for kind in kinds if kind is not None]
        assert len(asked) == 1, "controls of one kind"
        assert len(asked[0]) == self.start.chunk, "one control per latent frame"
        self._chunks.append(chunk)

    def truncate(self, chunks: int) -> None:
        """Go back: only the first `chunks` of them have been walked."""
        del self._chunks[max(chunks, 0) :]

    def restart(self, seed: int | None = None) -> None:
        """Back to the start picture; None keeps the seed."""
        self._chunks.clear()
        if seed is not None:
            self.start = msgspec.structs.replace(self.start, seed=seed)

    def branch(self, chunks: int | None = None) -> Walked:
        """Another walk that has the first `chunks` of this one in common; None: all of them."""
        return Walked(self.start, self.made, self._chunks[:chunks])

    def file(self) -> WorldFile:
        """The walk as it stands now."""
        digests = b"".join(chunk.digest or bytes(DIGEST_BYTES) for chunk in self._chunks)
        rows = [chunk.poses for chunk in self._chunks if chunk.poses is not None]
        return WorldFile(
            start=self.start,
            made=self.made,
            walk=Walk(
                chunks=len(self._chunks),
                runs=tuple(_runs(self._chunks)),
                poses=b"" if not rows else np.concatenate(rows).astype("<f4").tobytes(),
                prompts=tuple(_prompts(self._chunks)),
                steps=tuple(_steps(self._chunks)),
                digests=digests if any(digests) else b"",
            ),
        )

    def encode(self) -> bytes:
        """The world file. Raises `WorldFileError` for a walk that no file can hold."""
        return write_world(self.file())


def _controls(chunk: Stepped) -> Iterator[Control]:
    if chunk.motions is not None:
        yield from chunk.motions
    elif chunk.actions is not None:
        yield from ("".join(held) for held in chunk.actions)
    else:
        assert chunk.poses is not None, "controls of one kind"
        yield from (None for _ in chunk.poses)


def _runs(chunks: Iterable[Stepped]) -> Iterator[Run]:
    """Equal controls in a row as one run."""
    run: Run | None = None
    for chunk in chunks:
        for control in _controls(chunk):
            if run is not None and same(run.control, control):
                run = Run(run.count + 1, control)
                continue
            if run is not None:
                yield run
            run = Run(1, control)
    if run is not None:
        yield run


def same(a: Control, b: Control) -> bool:
    """Whether two controls are equal bit for bit: -0.0 is not 0.0."""
    return a == b and repr(a) == repr(b)


def _prompts(chunks: Iterable[Stepped]) -> Iterator[PromptAt]:
    for index, chunk in enumerate(chunks):
        if chunk.prompt is not None:
            yield PromptAt(index, chunk.prompt, chunk.blend_chunks)


def _steps(chunks: Iterable[Stepped]) -> Iterator[StepsAt]:
    for index, chunk in enumerate(chunks):
        if chunk.steps is not None:
            yield StepsAt(index, chunk.steps)
