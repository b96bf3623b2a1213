"""Walks of files on a loaded model: open the same world again, and step it as it was stepped."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics
from worldline.core.chunk import Chunk
from worldline.core.walk import (
    Stepped,
    WorldFile,
    WorldStart,
    frames_digest,
    pixels_digest,
    pose_rows,
    relative_and_keys,
)
from worldline.runtime.conditions import Controls, PoseControls
from worldline.runtime.noise import SeededNoise
from worldline.runtime.replaying_films import film_again

if TYPE_CHECKING:
    from worldline.runtime.engine import World
    from worldline.runtime.session import Session


class Replayed(NamedTuple):
    """A chunk made again; `same` is None where the file has nothing to compare with."""

    chunk: Chunk
    same: bool | None


def start_of(
    world: World, session: Session, *, picture: bytes, pixels: NDArray[np.uint8], prompt: str
) -> WorldStart:
    """What a seeded session begins with; `picture` is the encoded file, `pixels` uint8 `H W 3`."""
    state = session.state
    noise, k = state.noise, state.intrinsics
    assert isinstance(noise, SeededNoise), "only seeded noise can be drawn again"
    return WorldStart(
        picture=picture,
        pixels=pixels_digest(pixels),
        prompt=prompt,
        seed=noise.seed,
        width=session.width,
        height=session.height,
        fps=world.info.fps,
        chunk=session.chunk,
        window=session.window,
        sink=session.sink,
        steps=state.settings.steps,
        shift=state.settings.shift,
        intrinsics=(k.fx, k.fy, k.cx, k.cy),
        rig=state.rig,
    )


def open_again(world: World, start: WorldStart, pixels: NDArray[np.uint8]) -> Session:
    """A session that begins as the file's did. Raises what `World.start` raises."""
    return world.start(
        pixels,
        start.prompt,
        start.seed,
        width=start.width,
        height=start.height,
        chunk=start.chunk,
        window=start.window,
        sink=start.sink,
        shift=start.shift,
        steps=start.steps,
        intrinsics=None if start.intrinsics is None else Intrinsics(*start.intrinsics),
        rig=start.rig,
    )


def replay(world: World, file: WorldFile, pixels: NDArray[np.uint8]) -> Generator[Replayed]:
    """Make every chunk of the walk again. Raises what `open_again` and `Session.step` raise."""
    guided = file.start.guided is not None
    made = film_again(world, file, pixels) if guided else _walked_again(world, file, pixels)
    with contextlib.closing(made) as chunks:
        for step, chunk in zip(file.chunks(), chunks, strict=True):
            same = frames_digest(chunk.frames) == step.digest if step.digest else None
            yield Replayed(chunk, same)


def _walked_again(world: World, file: WorldFile, pixels: NDArray[np.uint8]) -> Generator[Chunk]:
    with open_again(world, file.start, pixels) as session:
        for step in file.chunks():
            yield again(session, step)


def again(session: Session, step: Stepped) -> Chunk:
    """Step a session as it was stepped then."""
    return session.step(
        controls_of(step), prompt=step.prompt, blend_chunks=step.blend_chunks, steps=step.steps
    )


def controls_of(step: Stepped) -> Controls:
    """What `Session.step` takes."""
    if step.poses is not None:
        return PoseControls(*relative_and_keys(step.poses))
    return step.actions if step.motions is None else step.motions


def stepped_by(controls: PoseControls | None, chunk: Chunk, *, frames: int) -> Stepped:
    """A chunk of `frames` latent frames that recorded poses, or nothing, led through."""
    digest = frames_digest(chunk.frames)
    if controls is None:
        return Stepped(actions=((),) * frames, digest=digest)
    return Stepped(poses=pose_rows(controls.relative, controls.keys), digest=digest)
