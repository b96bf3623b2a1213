"""`worldline generate`: one film from a picture, a prompt and a camera path."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import TextColumn

from worldline.cli.guided import PART, Size, check_distilled, make_guided, request_of
from worldline.cli.loading import load_world, parse_size, progress_bar, worker_settings
from worldline.cli.options import Generate
from worldline.core.actions import Keys, parse_action_string
from worldline.core.camera import load_trajectory, poses_from_keys
from worldline.core.errors import ConfigError, ImageError
from worldline.core.film import CameraPath, FilmMotion, fit_path
from worldline.media.image import decode_image
from worldline.media.record import Recorder, open_recorder

if TYPE_CHECKING:
    from worldline.core.chunk import Chunk
    from worldline.runtime.conditions import PoseControls
    from worldline.runtime.engine import Session, World

    Keep = Callable[[PoseControls | None, Chunk], None]


class Film(msgspec.Struct, frozen=True, kw_only=True):
    """What `generate` made; `seconds` is the time from start picture to last frame, without load.

    `sha256` is over the raw RGB frames: equal films have equal sums whatever the container. `world`
    is the world file, where one was saved; `resumed` counts denoise passes of an earlier run.
    """

    out: str
    model: str
    seed: int
    width: int
    height: int
    chunks: int
    frames: int
    seconds: float
    fps: float
    video_fps: int
    load_seconds: float
    chunk_ms: list[float]
    sha256: str
    world: str | None = None
    resumed: int = 0


def generate(options: Generate) -> int:
    """Run the command; returns the exit code."""
    size = parse_size(options.session.size)
    path = read_path(options)
    image = read_image(options.image)
    if options.chunks is not None and options.chunks < 1:
        raise ConfigError("nothing to generate", expected="--chunks 1 or more", got=options.chunks)
    check_places(options)
    film = make_film(options, image, path, size=size)
    if options.json:
        print(msgspec.json.encode(film).decode())
    else:
        print(f"{film.frames} frames in {film.seconds:.2f} s: {film.fps:.1f} fps -> {film.out}")
    return 0


def check_places(options: Generate) -> None:
    """Refuse a world file where the film is, or is kept. Raises: ConfigError."""
    if options.save is None:
        return
    save, out = options.save.absolute(), Path(options.out).absolute()
    if any(save.is_relative_to(place) for place in (out, Path(f"{out}{PART}"))):
        raise ConfigError(
            "film and world file in one place", expected="--save outside of --out", got=save
        )


def read_path(options: Generate) -> CameraPath | None:
    """The camera path that the options name, or None to stand still. Raises: ControlError."""
    if options.actions is not None:
        if options.poses is not None or options.intrinsics is not None:
            raise ConfigError("two camera paths", expected="either --actions or --poses")
        keys: Keys = parse_action_string(options.actions)
        return CameraPath(poses_from_keys(keys.wasd, keys.ijkl), keys.wasd, None)
    if (options.poses is None) != (options.intrinsics is None):
        raise ConfigError("--poses and --intrinsics go together", expected="both or neither")
    if options.poses is None or options.intrinsics is None:
        return None
    trajectory = load_trajectory(options.poses, options.intrinsics)
    return CameraPath(trajectory.c2w, None, trajectory.intrinsics)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The start picture, uint8 `H W 3`. Raises: ImageError."""
    return decode_image(read_picture(path))


def read_picture(path: Path) -> bytes:
    """The start picture's file. Raises: ImageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError("the start picture cannot be read", got=error) from None


def make_film(
    options: Generate,
    image: NDArray[np.uint8],
    path: CameraPath | None,
    *,
    size: tuple[int, int] | tuple[None, None],
) -> Film:
    """Load the model and write the film. Raises what loading, starting and stepping raise."""
    loading = time.perf_counter()
    world = load_world(worker_settings(options.load))
    if not world.preset.live:
        return guided_film(options, world, image, path, size=size, loading=loading)
    check_distilled(options)
    start = time.perf_counter()
    with start_session(world, options, image, path, size=size) as session:
        motion = fit_path(path, session.chunk, options.chunks)
        later = options.record_decoder == "full"
        with saving(options, world, session, image) as keep:
            written = write_film(
                options.out, session, motion, fps=world.info.fps, later=later, keep=keep
            )
        width, height = session.width, session.height
    seconds = time.perf_counter() - start
    return Film(
        out=options.out,
        model=world.info.model,
        seed=options.seed,
        width=width,
        height=height,
        chunks=motion.chunks,
        frames=written.frames,
        seconds=round(seconds, 3),
        fps=round(written.frames / seconds, 2),
        video_fps=world.info.fps,
        load_seconds=round(start - loading, 3),
        chunk_ms=written.chunk_ms,
        sha256=written.sha256,
        world=None if options.save is None else str(options.save),
    )


def guided_film(
    options: Generate,
    world: World,
    image: NDArray[np.uint8],
    path: CameraPath | None,
    *,
    size: tuple[int, int] | tuple[None, None],
    loading: float,
) -> Film:
    """A film of a base or pretrained model, with a second one where a device for it is named."""
    request = request_of(options, world, path, size=Size(*size))
    partner = None
    if options.guidance_device is not None:
        beside = msgspec.structs.replace(
            worker_settings(options.load), device=options.guidance_device
        )
        partner = load_world(beside)
    start = time.perf_counter()
    made = make_guided(options, world, request, image, partner=partner)
    seconds = time.perf_counter() - start
    return Film(
        out=options.out,
        model=world.info.model,
        seed=options.seed,
        width=made.width,
        height=made.height,
        chunks=made.chunks,
        frames=made.frames,
        seconds=round(seconds, 3),
        fps=round(made.frames / seconds, 2),
        video_fps=world.info.fps,
        load_seconds=round(start - loading, 3),
        chunk_ms=made.chunk_ms,
        sha256=made.sha256,
        resumed=made.resumed,
        world=None if options.save is None else str(options.save),
    )


def saving(
    options: Generate, world: World, session: Session, image: NDArray[np.uint8]
) -> AbstractContextManager[Keep]:
    """Where finished chunks go so that the walk can be saved. Raises: WorldFileError."""
    if options.save is None:
        return contextlib.nullcontext(_keep_none)
    from worldline.cli.saving import Saving

    picture = read_picture(options.image)
    return Saving(
        options.save, world, session, picture=picture, pixels=image, prompt=options.prompt
    )


def start_session(
    world: World,
    options: Generate,
    image: NDArray[np.uint8],
    path: CameraPath | None,
    *,
    size: tuple[int, int] | tuple[None, None],
) -> Session:
    """A session with the numbers of the options."""
    asked = options.session
    return world.start(
        image,
        options.prompt,
        options.seed,
        width=size[0],
        height=size[1],
        chunk=asked.chunk,
        window=asked.window,
        sink=asked.sink,
        shift=asked.shift,
        steps=asked.steps,
        intrinsics=None if path is None else path.intrinsics,
        keep_latents=options.record_decoder == "full",
    )


class Written(NamedTuple):
    """Frames written, milliseconds per chunk, and the sum over the raw frames."""

    frames: int
    chunk_ms: list[float]
    sha256: str


class _Writer:
    """Takes the film's frames in order: to the recorder, into the sum."""

    def __init__(self, recorder: Recorder) -> None:
        self.frames = 0
        self._recorder = recorder
        self._total = hashlib.sha256()

    def write(self, frames: NDArray[np.uint8]) -> None:
        self._recorder.write(frames)
        self._total.update(np.ascontiguousarray(frames).data)
        self.frames += len(frames)

    @property
    def sha256(self) -> str:
        return self._total.hexdigest()


def write_film(
    out: str, session: Session, motion: FilmMotion, *, fps: int, later: bool, keep: Keep
) -> Written:
    """Generate chunk by chunk into a film or folder; `later` decodes the film when all are made.

    `keep` is told the controls of every chunk and what came of them. Raises: ConfigError for an
    unusable `out`.
    """
    shown, chunk_ms = 0, []
    try:
        recorder = open_recorder(out, fps, width=session.width, height=session.height)
    except OSError as error:
        raise ConfigError("the film cannot be written", expected="--out", got=error) from None
    bar = progress_bar(TextColumn("{task.fields[fps]:.1f} fps"))
    with recorder, bar:
        writer = _Writer(recorder)
        task = bar.add_task("generating chunks", total=motion.chunks, fps=0.0)
        began = time.perf_counter()
        for i in range(motion.chunks):
            controls = _controls(motion, i, session.chunk)
            chunk = session.step(controls)
            keep(controls, chunk)
            if not later:
                writer.write(chunk.frames)
            shown += len(chunk.frames)
            chunk_ms.append(round(chunk.timings.total_ms, 1))
            bar.update(task, advance=1, fps=shown / (time.perf_counter() - began))
        if later:
            bar.update(task, description="decoding the film")
            for frames in session.recording():
                writer.write(frames)
    return Written(writer.frames, chunk_ms, writer.sha256)


def _keep_none(controls: PoseControls | None, chunk: Chunk) -> None:
    """Nobody saves the walk."""


def _controls(motion: FilmMotion, index: int, chunk: int) -> PoseControls | None:
    from worldline.runtime.conditions import PoseControls

    if motion.relative is None:
        return None
    part = slice(index * chunk, (index + 1) * chunk)
    keys = None if motion.keys is None else motion.keys[part]
    return PoseControls(motion.relative[part], keys)
