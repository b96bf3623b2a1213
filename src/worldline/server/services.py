"""What all sockets of one app share; made when the app starts, gone when it ends."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from worldline.core.config import ServerConfig, WorldInfo
from worldline.runtime.handle import EngineHandle
from worldline.server.device import Device
from worldline.server.engine import AsyncEngine
from worldline.server.live.recordings import Recordings
from worldline.server.live.saves import Saves
from worldline.server.logs import log
from worldline.server.metrics import Metrics
from worldline.server.seats import Seats
from worldline.server.tracing import Traces
from worldline.server.waiting import AsyncClock
from worldline.server.walks import Walks
from worldline.server.warmup import Readiness, Revivals, State, WarmUp, warm_up

logger = logging.getLogger("worldline.server")

MAX_ENCODERS = 4
MAX_READERS = 2


class Services(NamedTuple):
    """`readers` are the threads that decode start pictures, `encoders` those that encode frames:
    apart, so that large pictures delay nobody's frames."""

    config: ServerConfig
    engine: AsyncEngine
    clock: AsyncClock
    sockets: Seats
    seats: Seats
    readiness: Readiness
    metrics: Metrics
    readers: ThreadPoolExecutor
    encoders: ThreadPoolExecutor
    device: Device
    traces: Traces
    recordings: Recordings
    saves: Saves
    walks: Walks


@asynccontextmanager
async def running(
    config: ServerConfig,
    handle: EngineHandle,
    clock: AsyncClock,
    *,
    revivals: Revivals | None = None,
) -> AsyncGenerator[Services]:
    """Start threads and the warm-up; on leaving, end both. The handle stays its owner's.

    `revivals` tells of every worker that replaces one which died: it is warmed up too.
    """
    calls, readers, encoders = _threads(config)
    engine = AsyncEngine(handle, calls)
    services = Services(
        config=config,
        engine=engine,
        clock=clock,
        sockets=Seats(config.max_sockets),
        seats=Seats(seats_of(config, engine.info)),
        readiness=Readiness(),
        metrics=Metrics(),
        readers=readers,
        encoders=encoders,
        device=Device(clock, engine.lane),
        traces=Traces(),
        recordings=Recordings(config, clock),
        saves=Saves(config, clock),
        walks=Walks(),
    )
    _watch(services)
    warming = _warming(services)
    try:
        with (revivals or Revivals()).heard(warming.again):
            yield services
    finally:
        await warming.stop()
        calls.shutdown()
        readers.shutdown()
        encoders.shutdown()
        services.recordings.close()


def _warming(services: Services) -> WarmUp:
    """As many sessions as there are seats, and one on every replica at least."""
    return WarmUp(
        services.readiness,
        lambda: warm_up(
            services.engine,
            services.readiness,
            clock=services.clock,
            chunks=services.config.warmup_chunks,
            sessions=max(services.seats.count, services.engine.info.replicas),
        ),
    )


def _threads(
    config: ServerConfig,
) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor, ThreadPoolExecutor]:
    """Those that wait for the engine, that read pictures, and that encode."""
    # One call per session at a time, and one each for the warm-up, for the census, and to close a
    # session behind its step.
    calls = ThreadPoolExecutor(config.seats + 3, thread_name_prefix="engine-call")
    readers = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="picture")
    count = min(MAX_ENCODERS, os.cpu_count() or 1)
    return calls, readers, ThreadPoolExecutor(count, thread_name_prefix="encode")


def seats_of(config: ServerConfig, info: WorldInfo) -> int:
    """How many worlds at a time: as many as were asked for, and no more than the device holds.

    One is always tried: the plan is an estimate, and the engine says what does not fit.
    """
    fit = info.sessions_that_fit()
    if fit is None or fit >= config.seats:
        return config.seats
    log(logger, logging.WARNING, "fewer seats than asked for", asked=config.seats, fit=fit)
    return max(1, fit)


def _watch(services: Services) -> None:
    metrics, seats = services.metrics, services.seats
    store = services.recordings
    metrics.watch("recordings", "Recordings on the disk", lambda: float(len(store)))
    saves, walks = services.saves, services.walks
    metrics.watch("history_bytes", "Snapshots kept to bring sessions back", lambda: walks.nbytes)
    metrics.watch_total("recovered", "Sessions that outlived a worker", lambda: walks.recovered)
    metrics.watch_total("lost", "Sessions that ended with a worker", lambda: walks.lost)
    metrics.watch("saves", "World files that wait to be fetched", lambda: float(len(saves)))
    metrics.watch("save_bytes", "Bytes of all of them", lambda: float(saves.bytes))
    metrics.watch("recording_bytes", "Bytes of all recordings", lambda: float(store.bytes))
    metrics.watch("seats", "Seats of this server", lambda: seats.count)
    metrics.watch("seats_taken", "Seats in use", lambda: seats.taken)
    metrics.watch("sockets", "Open sockets", lambda: services.sockets.taken)
    metrics.watch("ready", "1 once the warm-up has run", lambda: float(is_ready(services)))


def is_ready(services: Services) -> bool:
    """Whether a session could start now, given a seat."""
    return services.readiness.state is State.READY and services.engine.alive()
