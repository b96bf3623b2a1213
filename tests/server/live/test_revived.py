"""A worker that dies takes its worlds with it, nobody in line; the next is warmed up first."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.fakes import LIMIT_S, FakeHandle, settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket
from worldline.core.errors import WorkerDiedError
from worldline.core.live.server import Opened, Queued
from worldline.server.warmup import State

pytestmark = pytest.mark.anyio


async def readiness(rig: Rig) -> tuple[int, str]:
    """What `/readyz` says."""
    transport = httpx.ASGITransport(rig.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/readyz")
    return answer.status_code, answer.json()["status"]


async def in_line(start: Start, handle: FakeHandle) -> tuple[Rig, LiveSocket, LiveSocket]:
    """One seat, two who wait for it, and a worker that has just died under the world that runs."""
    rig = await start(handle, seats=1, heartbeat_s=0)
    first, second, third = (rig.connect() for _ in range(3))
    await first.walk()
    await second.queue()
    await third.queue()
    handle.die()
    rig.worlds.last.complete.set_exception(WorkerDiedError("the worker process has ended"))
    assert (await first.closed())[0].code == "worker_died"
    return rig, second, third


async def test_a_line_waits_for_the_next_worker_until_it_is_warm(start: Start) -> None:
    handle = FakeHandle()
    handle.reviving = True
    rig, second, third = await in_line(start, handle)
    while rig.services.seats.taken:
        await settle()
    assert (len(rig.worlds.made), rig.house.waiting) == (1, 2)
    assert await readiness(rig) == (503, "worker died")
    handle.hold()
    handle.dead = False
    rig.revivals.tell()
    assert await asyncio.to_thread(handle.entered.acquire, timeout=LIMIT_S)
    await settle()
    assert rig.services.readiness.state is State.WARMING
    assert await readiness(rig) == (503, "warming up")
    assert (len(rig.worlds.made), rig.house.waiting) == (1, 2)
    handle.allow(1000)
    await second.until(Opened)
    assert (await third.until(Queued)).position == 1
    assert await readiness(rig) == (200, "ready")


async def test_nobody_waits_where_no_other_worker_comes(start: Start) -> None:
    rig, second, third = await in_line(start, FakeHandle())
    for socket in (second, third):
        error, code = await socket.closed()
        assert (error.code, error.got, code) == ("capacity", "the worker died", 4503)
    assert len(rig.worlds.made) == 1
    await rig.empty()


async def test_a_worker_that_comes_during_a_warm_up_is_warmed_up_once(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    rig = await start(handle, warm=False)
    assert await asyncio.to_thread(handle.entered.acquire, timeout=LIMIT_S)
    rig.revivals.tell()
    handle.allow(1000)
    await rig.services.readiness.decided()
    made = len(handle.requests)
    await settle()
    assert rig.services.readiness.state is State.READY
    assert len(handle.requests) == made
