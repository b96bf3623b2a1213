"""The workers of a server: started together, watched over, behind one handle."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from worldline.cli.loading import LoadingDisplay
from worldline.runtime.handle import EngineHandle, WorkerHandle
from worldline.runtime.protocol import LoadProgress, WorkerSettings
from worldline.runtime.replicas import Replicas
from worldline.runtime.supervisor import SupervisedHandle
from worldline.server.logs import log

logger = logging.getLogger("worldline.server")


def start_workers(
    settings: Sequence[WorkerSettings], *, meanwhile: Callable[[], None]
) -> list[WorkerHandle]:
    """Load the model in a worker for each of `settings`, with a display of the first.

    `meanwhile` runs beside their start. Raises what loading raises; then none of them is left.
    """
    began = time.perf_counter()
    stages: dict[str, float] = {}  # seconds until each began
    with ExitStack() as left, LoadingDisplay(settings[0].model) as display:

        def show(progress: LoadProgress) -> None:
            display.report(progress.done, progress.total, progress.stage)
            stages.setdefault(progress.stage, time.perf_counter() - began)

        handles: list[WorkerHandle] = []
        for one in settings:
            handles.append(WorkerHandle(one, on_progress=None if handles else show))
            left.callback(handles[-1].shutdown, limit_s=0)
        meanwhile()
        for handle in handles:
            handle.wait_until_loaded()
        left.pop_all()
    loaded = time.perf_counter() - began
    process, *read = [*stages.values(), loaded]
    parts = {"process_ms": process, "imports_ms": read[0] - process, "load_ms": loaded - read[0]}
    rounded = {name: round(seconds * 1000, 1) for name, seconds in parts.items()}
    model = handles[0].info.model
    log(logger, logging.INFO, "model loaded", model=model, **rounded, **_shape(settings))
    return handles


def supervise(
    workers: Sequence[WorkerHandle],
    settings: Sequence[WorkerSettings],
    *,
    on_restart: Callable[[], None],
) -> EngineHandle:
    """One handle for them; each is started again when it dies.

    `on_restart` is called, in a thread, when there is a worker again after there was none.
    """

    def make(i: int, revived: Callable[[], None]) -> EngineHandle:
        again = functools.partial(WorkerHandle, settings[i])
        return SupervisedHandle(workers[i], again, on_restart=revived)

    if len(workers) == 1:
        return make(0, on_restart)
    return Replicas(
        [functools.partial(make, i) for i in range(len(workers))], on_restart=on_restart
    )


def _shape(settings: Sequence[WorkerSettings]) -> dict[str, int]:
    """For the log: nothing where one process serves."""
    shape = {"ranks": settings[0].ranks, "replicas": len(settings)}
    return shape if shape != {"ranks": 1, "replicas": 1} else {}
