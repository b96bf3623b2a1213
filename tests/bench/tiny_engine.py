"""The small model as the engine of a worker process."""

from __future__ import annotations

from collections.abc import Callable

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.runtime.engine import World
from worldline.runtime.protocol import OpenRequest, WorkerSettings

REANCHOR_AT = 12  # latent frames: four chunks of three


def settings() -> WorkerSettings:
    """Settings that load this engine in a worker."""
    return WorkerSettings(model="tiny", engine="tests.bench.tiny_engine:load", threads=1)


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
) -> World:
    """What the worker calls; the small model comes in one kind only."""
    del model, device, dtype, mode, random_weights, threads, progress
    return tiny.world(reanchor_at=REANCHOR_AT, options=options)


def open_request(session_id: str) -> OpenRequest:
    """A request for a session with a picture of noise."""
    return OpenRequest(
        session_id=session_id,
        image=tiny.picture().tobytes(),
        image_width=tiny.WIDTH,
        image_height=tiny.HEIGHT,
        prompt=tiny.PROMPT,
        seed=1,
        steps=1,
    )
