"""`worldline generate` with a guided model: turn by turn, kept on the way, gone on with by itself.

What is done lies in `<out>.part` until the film is whole and takes its place. The same command line
goes on there after a crash or Ctrl-C, and gives the film it would have given.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TaskID, TextColumn

from worldline.cli.loading import progress_bar
from worldline.cli.options import Generate
from worldline.core.clock import Clock, MonotonicClock
from worldline.core.errors import ConfigError
from worldline.core.film import (
    CameraPath,
    FilmPath,
    FilmProgress,
    FilmRequest,
    fit_path,
    path_frames,
)
from worldline.media.record import Recorder, open_recorder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from worldline.cli.saving import Saving
    from worldline.models.preset import RuntimeParams
    from worldline.runtime.engine import World
    from worldline.runtime.films import FilmJob

SAVE_S = 10.0  # what a crash may cost, beside the pass under way
PART = ".part"
LOCK = "lock"


class Size(NamedTuple):
    """Pixels; None leaves them to the preset."""

    width: int | None
    height: int | None


class Made(NamedTuple):
    """A finished film: pictures, seconds per chunk in this run, sum over the raw frames."""

    width: int
    height: int
    chunks: int
    frames: int
    chunk_ms: list[float]
    sha256: str
    resumed: int


def check_distilled(options: Generate) -> None:
    """Refuse options of guided models with any other. Raises `ConfigError`."""
    guided = {
        "--guidance": options.guidance,
        "--negative-prompt": options.negative_prompt,
        "--solver": options.solver,
        "--guidance-device": options.guidance_device,
    }
    given = [name for name, value in guided.items() if value is not None]
    given += ["--branches"] if options.branches != "auto" else []
    if given:
        raise ConfigError(
            f"{options.load.model} is distilled and takes no guidance",
            expected="a base or pretrained model",
            got=", ".join(given),
        )


def request_of(
    options: Generate, world: World, path: CameraPath | None, *, size: Size
) -> FilmRequest:
    """The film that the options ask for. Raises `ControlError`, `ConfigError`."""
    asked = options.session
    clip = world.preset.bidirectional
    chunk = asked.chunk
    if clip and chunk is None and path is not None and options.chunks is None:
        chunk = path_frames(path)  # as the official code: the whole path is one clip
    chunk = _settings(world, options, chunk).chunk
    length = 1 if path is None and clip and options.chunks is None else options.chunks
    motion = fit_path(path, chunk, length, overlap=int(clip))
    drawn = None if motion.relative is None else FilmPath.of(motion.relative, motion.keys)
    known = None if path is None else path.intrinsics
    return FilmRequest(
        prompt=options.prompt,
        chunks=motion.chunks,
        seed=options.seed,
        width=size.width,
        height=size.height,
        chunk=chunk,
        window=asked.window,
        sink=asked.sink,
        shift=asked.shift,
        steps=asked.steps,
        intrinsics=None if known is None else (known.fx, known.fy, known.cx, known.cy),
        path=drawn,
        negative_prompt=options.negative_prompt,
        guidance=options.guidance,
        solver=options.solver,
        branches=options.branches,
    )


def make_guided(
    options: Generate,
    world: World,
    request: FilmRequest,
    image: NDArray[np.uint8],
    *,
    partner: World | None = None,
    clock: Clock | None = None,
) -> Made:
    """Make the film, or what is missing of it. Raises what `runtime.films` raises."""
    from worldline.runtime.films import open_film

    place = Place(options.out)
    with (
        alone(place.folder),
        open_film(world, request, image, folder=place.folder, partner=partner) as job,
    ):
        keep = _keeping(options, world, job, request, image=image)
        with place.recorder(world.info.fps, job) as recorder, keep as walk:
            try:
                made = _run(job, recorder, clock=clock or MonotonicClock(), walk=walk)
            except KeyboardInterrupt:
                job.save()
                print(f"kept in {place.folder}: the same command goes on", file=sys.stderr)
                raise
        place.finish()
        job.forget()
    return made


def _keeping(
    options: Generate,
    world: World,
    job: FilmJob,
    request: FilmRequest,
    *,
    image: NDArray[np.uint8],
) -> AbstractContextManager[Saving | None]:
    if options.save is None:
        return contextlib.nullcontext()
    from worldline.cli.saving import Saving
    from worldline.runtime.replaying_films import guided_of

    return Saving(
        options.save,
        world,
        job.session,
        picture=options.image.read_bytes(),
        pixels=image,
        prompt=request.prompt,
        guided=guided_of(job, request),
    )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else makes a film in `folder` meanwhile; a process that dies holds nothing.

    Raises `ConfigError` where somebody does, or nothing can be written.
    """
    with _locked(folder):
        try:
            yield
        finally:
            if folder.is_dir() and [path.name for path in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder)  # nothing came of it


def _locked(folder: Path) -> IO[bytes]:
    """The lock of a folder, ours until it is closed; of no effect where the system has none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("wb")
    except OSError as error:
        raise ConfigError("the film cannot be written", expected="--out", got=error) from None
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                "somebody is making a film here", expected="another --out", got=folder
            ) from None
        except OSError:
            pass  # a file system without locks
    return file


class Place:
    """Where a film is while it is made, and where it will be."""

    def __init__(self, out: str) -> None:
        """Raises `ConfigError` for a place that is taken or cannot be written."""
        self._out = Path(out)
        self._film = self._out.suffix != "" and not out.endswith("/")
        folder = self._out.is_dir()
        taken = self._film if folder else self._out.exists() and not self._film
        if taken or not self._out.name or (folder and any(self._out.iterdir())):
            expected = "an .mp4 film, or an empty folder"
            raise ConfigError("the film's place is taken", expected=expected, got=out)
        self.folder = self._out.with_name(self._out.name + PART)

    @property
    def _coming(self) -> Path:
        return self.folder / ("film" + self._out.suffix if self._film else "pictures")

    def recorder(self, fps: int, job: FilmJob) -> Recorder:
        """Takes the pictures, from the first on. Raises `ConfigError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove()
            return open_recorder(self._coming, fps, width=job.width, height=job.height)
        except OSError as error:
            raise ConfigError("the film cannot be written", expected="--out", got=error) from None

    def finish(self) -> None:
        """Put the film in its place."""
        if self._out.is_dir():
            self._out.rmdir()  # empty
        self._coming.replace(self._out)

    def _remove(self) -> None:
        """What an interrupted run had shown is decoded again."""
        if self._coming.is_dir():
            shutil.rmtree(self._coming)
        self._coming.unlink(missing_ok=True)


def _run(job: FilmJob, recorder: Recorder, *, clock: Clock, walk: Saving | None) -> Made:
    """All turns, saved from time to time and when the user stops it."""
    from worldline.runtime.replaying_films import FilmChunks, stepped_film

    chunks = FilmChunks(job)
    total, chunk_ms = hashlib.sha256(), []
    saved = began = clock.now()
    with _Display() as display:
        while not job.done:
            before = job.progress.chunk
            frames = job.advance()
            if frames is not None:
                recorder.write(frames)
                total.update(np.ascontiguousarray(frames).data)
            if walk is not None and (chunk := chunks.take(frames)) is not None:
                walk.add(stepped_film(job, chunk))
            now = clock.now()
            if now - saved >= SAVE_S:
                job.save()
                saved = now
            if job.done or job.progress.chunk != before:
                chunk_ms.append(round(1000 * (now - began), 1))
                began = now
            display.show(job.progress)
    return Made(
        width=job.width,
        height=job.height,
        chunks=job.progress.chunks,
        frames=job.progress.frames,
        chunk_ms=chunk_ms,
        sha256=total.hexdigest(),
        resumed=job.resumed,
    )


def _settings(world: World, options: Generate, chunk: int | None) -> RuntimeParams:
    from worldline.models.preset import RuntimeValues, resolve_runtime

    asked = options.session
    values = RuntimeValues(chunk=chunk, window=asked.window, sink=asked.sink)
    return resolve_runtime(world.preset, world.components.checkpoint, values)


class _Display:
    """A line on the terminal that says which turn of how many is being made."""

    def __init__(self) -> None:
        self._bar: Progress = progress_bar(TextColumn("{task.fields[chunk]}"))
        self._task: TaskID | None = None

    def show(self, progress: FilmProgress) -> None:
        """Show how far the film is."""
        if self._task is not None:
            self._bar.update(
                self._task,
                description=f"making the film: {progress.stage}",
                completed=progress.done,
                total=progress.total,
                chunk=f"chunk {progress.chunk + 1}/{progress.chunks}",
            )

    def __enter__(self) -> _Display:
        self._bar.start()
        self._task = self._bar.add_task("making the film", total=None, chunk="")
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()
