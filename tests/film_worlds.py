"""Small guided worlds: two experts of a base model, and a causal network before distillation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests import tiny
from worldline.core.camera import framewise_relative
from worldline.core.film import FilmPath, FilmRequest
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import Sampler
from worldline.models.presets import GUIDED
from worldline.runtime.engine import World
from worldline.runtime.films import FilmJob, open_film

STEPS, BOUNDARY = 5, 0.947
NEGATIVE = "blurred and grey"


def sampler(steps: int = STEPS, *, boundary: float | None = None) -> Sampler:
    """The guided sampler with few steps."""
    return msgspec.structs.replace(GUIDED, steps=tuple(range(steps)), boundary=boundary)


def base(*, control_dim: int = 6, chunk: int = 3) -> World:
    """Two experts; all frames of a clip see each other."""
    world = tiny.world(
        dit=tiny.dit_params(control_dim=control_dim),
        sampler=sampler(boundary=BOUNDARY),
        experts=2,
        chunk=chunk,
        window=-1,
        sink=0,
        negative_prompt=NEGATIVE,
    )
    low = LingBotDiT(world.preset.dit)
    tiny.build(low, 7)
    return World(dataclasses.replace(world.components, low_noise_dit=low))


def pretrain(**changes: object) -> World:
    """One causal network, guided, with a window that rolls over soon."""
    numbers: dict[str, object] = {
        "sampler": sampler(3),
        "chunk": 2,
        "window": 5,
        "sink": 1,
        "negative_prompt": NEGATIVE,
    }
    return tiny.world(**(numbers | changes))  # pyright: ignore[reportArgumentType]


def walk(frames: int) -> NDArray[np.float32]:
    """Relative poses of a walk ahead that turns, `[T, 4, 4]`."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for i in range(frames):
        turn = 0.1 * i
        poses[i, :3, :3] = [
            [np.cos(turn), 0, np.sin(turn)],
            [0, 1, 0],
            [-np.sin(turn), 0, np.cos(turn)],
        ]
        poses[i, 2, 3] = 0.2 * i + 0.05 * i * i
    return framewise_relative(poses)


def keys(frames: int) -> NDArray[np.float32]:
    """Walk keys w a s d, `[T, 4]`."""
    pressed = np.zeros((frames, 4), dtype=np.float32)
    pressed[:, 0] = 1
    pressed[1::2, 3] = 1
    return pressed


def request(frames: int, **changes: object) -> FilmRequest:
    """A film of so many latent frames, walked."""
    numbers: dict[str, object] = {"prompt": tiny.PROMPT, "path": FilmPath.of(walk(frames))}
    return msgspec.convert(
        msgspec.structs.asdict(FilmRequest(**(numbers | changes))),  # pyright: ignore
        FilmRequest,
    )


def whole(job: FilmJob) -> NDArray[np.uint8]:
    """All pictures of a film, uint8 `F H W 3`."""
    frames: list[NDArray[np.uint8]] = []
    while not job.done:
        shown = job.advance()
        if shown is not None:
            frames.append(shown)
    return np.concatenate(frames)


def made(world: World, asked: FilmRequest, *, partner: World | None = None) -> NDArray[np.uint8]:
    """A film from the first turn to the last."""
    with open_film(world, asked, tiny.picture(), partner=partner) as job:
        return whole(job)


def interrupted(world: World, asked: FilmRequest, folder: Path, *, turns: int) -> None:
    """Make so many turns, keep what is there, and forget the job, as a crash would."""
    with open_film(world, asked, tiny.picture(), folder=folder) as job:
        for _ in range(turns):
            job.advance()
        job.save()


def load(model: str, **_: object) -> World:
    """The engine of a worker: `base` or `pretrain`."""
    return base() if model == "base" else pretrain()
