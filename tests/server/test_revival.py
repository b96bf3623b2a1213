"""A worker that dies during the warm-up is no reason to serve nobody, where another one comes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import LIMIT_S, FakeClock, FakeHandle
from worldline.server.engine import AsyncEngine
from worldline.server.warmup import REVIVAL_S, Readiness, State, warm_up

CHUNKS = 2


@pytest.mark.parametrize("revives", [False, True])
def test_the_warm_up_begins_again_with_the_next_worker(revives: bool) -> None:
    async def run() -> None:
        handle, clock, readiness = FakeHandle(), FakeClock(), Readiness()
        handle.reviving = revives
        handle.hold()
        with ThreadPoolExecutor(2) as pool:
            engine = AsyncEngine(handle, pool)
            warming = asyncio.create_task(warm_up(engine, readiness, clock=clock, chunks=CHUNKS))
            await asyncio.to_thread(handle.entered.acquire, timeout=LIMIT_S)
            handle.die()  # in the middle of a step
            if not revives:
                await warming
                assert readiness.state is State.FAILED
                return
            await clock.until_sleeping(REVIVAL_S)
            assert readiness.state is State.WARMING
            handle.sessions.clear()  # the next worker knows none of them
            handle.dead = False
            await clock.advance(REVIVAL_S)
            await warming
        assert readiness.state is State.READY
        assert len(handle.requests) == CHUNKS
        handle.nothing_is_left()

    asyncio.run(run())
