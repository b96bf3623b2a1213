"""Counts over a long visit: tasks, descriptors and shared memory at chunk 100 and at chunk 300.

A real worker process with an engine that costs nothing; what a real engine holds inside it is
counted in `tests/runtime/test_counts.py`.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime import fake_engine
from tests.server.sockets import Socket, init, keys
from worldline.bench import census
from worldline.core.config import ServerConfig
from worldline.runtime.handle import WorkerHandle
from worldline.server.app import create_app

pytestmark = pytest.mark.anyio


def counted(worker: int | None) -> tuple[int, ...]:
    """Tasks of this process, and what both processes hold open; -1 where the system is silent."""
    counts = [
        count(pid)
        for pid in (None, worker)
        for count in (census.descriptors, census.shared_segments)
    ]
    return (len(asyncio.all_tasks()), *(-1 if count is None else count for count in counts))


def least(seen: list[tuple[int, ...]]) -> list[int]:
    """The least of every count: what is under way at the moment comes and goes, a leak stays."""
    return [min(counts) for counts in zip(*seen, strict=True)]


async def test_a_visit_holds_the_same_at_chunk_100_and_300() -> None:
    handle = WorkerHandle.spawn(fake_engine.settings())
    seen: list[tuple[int, ...]] = []
    try:
        app = create_app(ServerConfig(), handle)
        async with app.router.lifespan_context(app):
            socket = Socket(app)
            await socket.accepted()
            socket.send(init(max_chunks=301, prompt="a place"))
            for chunk in range(300):
                if chunk % 7 == 0:
                    socket.send(keys("w" if chunk % 2 else "l", event_id=chunk))
                await socket.chunk()
                seen.append(counted(handle.pid))
            await socket.chunk()
            assert await socket.closed() == (1000, "generation complete")
    finally:
        handle.shutdown()
    assert least(seen[60:100]) == least(seen[260:300])
    assert all(count > 0 for count in least(seen[260:300])[:2])
