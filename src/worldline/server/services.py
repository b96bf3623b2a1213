"""What all sockets of one app share; made when the app starts, gone when it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from worldline.core.config import ServerConfig
from worldline.runtime.handle import EngineHandle
from worldline.server.device import Device
from worldline.server.engine import AsyncEngine
from worldline.server.live.recordings import Recordings
from worldline.server.metrics import Metrics
from worldline.server.seats import Seats
from worldline.server.tracing import Traces
from worldline.server.waiting import AsyncClock, stop
from worldline.server.warmup import Readiness, State, warm_up

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


@asynccontextmanager
async def running(
    config: ServerConfig, handle: EngineHandle, clock: AsyncClock
) -> AsyncGenerator[Services]:
    """Start threads and the warm-up; on leaving, end both. The handle stays its owner's."""
    # One call per session at a time, one for the warm-up, one to close a session behind its step.
    calls = ThreadPoolExecutor(config.seats + 2, thread_name_prefix="engine-call")
    readers = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="picture")
    encoders = ThreadPoolExecutor(
        min(MAX_ENCODERS, os.cpu_count() or 1), thread_name_prefix="encode"
    )
    engine = AsyncEngine(handle, calls)
    services = Services(
        config=config,
        engine=engine,
        clock=clock,
        sockets=Seats(config.max_sockets),
        seats=Seats(config.seats),
        readiness=Readiness(),
        metrics=Metrics(),
        readers=readers,
        encoders=encoders,
        device=Device(clock),
        traces=Traces(),
        recordings=Recordings(config, clock),
    )
    _watch(services)
    warming = asyncio.create_task(
        warm_up(
            engine,
            services.readiness,
            clock=clock,
            chunks=config.warmup_chunks,
            sessions=config.seats,
        )
    )
    try:
        yield services
    finally:
        await stop(warming)
        calls.shutdown()
        readers.shutdown()
        encoders.shutdown()
        services.recordings.close()


def _watch(services: Services) -> None:
    metrics, seats = services.metrics, services.seats
    metrics.watch("seats", "Seats of this server", lambda: seats.count)
    metrics.watch("seats_taken", "Seats in use", lambda: seats.taken)
    metrics.watch("sockets", "Open sockets", lambda: services.sockets.taken)
    metrics.watch("ready", "1 once the warm-up has run", lambda: float(is_ready(services)))


def is_ready(services: Services) -> bool:
    """Whether a session could start now, given a seat."""
    return services.readiness.state is State.READY and services.engine.alive()
