"""Films of guided models as walks of files: chunk by chunk, and made again from what is written."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Chunk, StageTimings
from worldline.core.errors import WorldFileError
from worldline.core.film import BranchesName, FilmPath, FilmRequest, SolverName
from worldline.core.motion import START_POSE
from worldline.core.walk import (
    Guided,
    Stepped,
    WorldFile,
    frames_digest,
    pose_rows,
    relative_and_keys,
)

if TYPE_CHECKING:
    from worldline.runtime.engine import World
    from worldline.runtime.films import FilmJob

Pictures = NDArray[np.uint8]
SOLVERS = (None, "unipc", "dpm++")
BRANCHES = ("batched", "sequence")


class FilmChunks:
    """Gathers a job's pictures to whole chunks."""

    def __init__(self, job: FilmJob) -> None:
        self._job = job
        self._parts: list[Pictures] = []
        self._chunk = 0

    def take(self, frames: Pictures | None) -> Chunk | None:
        """What `advance` gave; the chunk that ends with it, or None."""
        if frames is not None:
            self._parts.append(frames)
            self._chunk = self._job.progress.chunk
        count = sum(map(len, self._parts))
        if not count or count < self._length:
            return None
        whole = np.concatenate(self._parts)
        self._parts = []
        still = (START_POSE,) * self._job.session.chunk
        return Chunk(self._chunk, whole, StageTimings(), still)

    @property
    def _length(self) -> int:
        """Pictures of the chunk under way."""
        latent = self._job.session.chunk - (self._job.overlap if self._chunk else 0)
        return 4 * latent - (3 if self._chunk == 0 else 0)


def guided_of(job: FilmJob, request: FilmRequest) -> Guided:
    """How a film is made, for its file."""
    return Guided(
        negative_prompt=request.negative_prompt,
        guidance=request.guidance,
        solver=request.solver,
        branches=job.branches,
        overlap=job.overlap,
    )


def stepped_film(job: FilmJob, chunk: Chunk) -> Stepped:
    """A chunk of a film, as its file remembers it."""
    first = chunk.index * (job.session.chunk - job.overlap)
    part = slice(first, first + job.session.chunk)
    relative, keys = job.path
    rows = pose_rows(relative[part], None if keys is None else keys[part])
    return Stepped(poses=rows, digest=frames_digest(chunk.frames))


def film_request(file: WorldFile) -> FilmRequest:
    """The film that a file tells of. Raises `WorldFileError`."""
    start, guided = file.start, file.start.guided
    assert guided is not None, "only a film is made from this"
    if guided.solver not in SOLVERS or guided.branches not in BRANCHES:
        raise WorldFileError(
            "a way of guidance that is not known here", got=f"{guided.solver}, {guided.branches}"
        )
    rows = [
        step.poses[guided.overlap if index else 0 :]
        for index, step in enumerate(file.chunks())
        if step.poses is not None
    ]
    if len(rows) != file.walk.chunks or not rows:
        raise WorldFileError("a film without its path", expected="poses in every chunk")
    return FilmRequest(
        prompt=start.prompt,
        chunks=file.walk.chunks,
        seed=start.seed,
        width=start.width,
        height=start.height,
        chunk=start.chunk,
        window=start.window,
        sink=start.sink,
        shift=start.shift,
        steps=start.steps if isinstance(start.steps, int) else len(start.steps),
        intrinsics=start.intrinsics,
        path=FilmPath.of(*relative_and_keys(np.concatenate(rows))),
        negative_prompt=guided.negative_prompt,
        guidance=guided.guidance,
        solver=cast("SolverName | None", guided.solver),
        branches=cast("BranchesName", guided.branches),
    )


def film_again(world: World, file: WorldFile, pixels: Pictures) -> Generator[Chunk]:
    """Every chunk of a film, made again. Raises what `open_film` raises."""
    from worldline.runtime.films import open_film

    with open_film(world, film_request(file), pixels) as job:
        chunks = FilmChunks(job)
        while not job.done:
            chunk = chunks.take(job.advance())
            if chunk is not None:
                yield chunk
