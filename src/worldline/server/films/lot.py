"""Where films are made while the app runs: threads and the studio, or none of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import get_args

from worldline.server.census import Census
from worldline.server.films.film import Status
from worldline.server.films.making import Desk
from worldline.server.films.store import FilmStore
from worldline.server.films.studio import Studio
from worldline.server.services import Services


@asynccontextmanager
async def filming(
    services: Services, store: FilmStore | None, census: Census
) -> AsyncGenerator[Studio | None]:
    """A studio for the films of `store`, until this is left; None where there is no store."""
    if store is None:
        _watch(services, None)
        yield None
        return
    disk = ThreadPoolExecutor(1, thread_name_prefix="film-queue")
    codec = ThreadPoolExecutor(1, thread_name_prefix="film-codec")
    studio = Studio(services, Desk(store, disk, codec))
    _watch(services, studio)
    census.count_films(studio)
    try:
        yield studio
    finally:
        await studio.close()
        disk.shutdown()
        codec.shutdown()


def _watch(services: Services, studio: Studio | None) -> None:
    metrics = services.metrics

    def count(status: Status) -> float:
        return 0.0 if studio is None else studio.count(status)

    by_status = {status: partial(count, status) for status in get_args(Status)}
    metrics.watch_each("films", "Films by status", "status", by_status)
    size = "Bytes of films on the disk"
    metrics.watch("film_bytes", size, lambda: 0.0 if studio is None else studio.bytes)
