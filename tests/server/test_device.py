"""The device's turns on an event loop: one at a time, in order, and none lost to a cancellation."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.fakes import LIMIT_S, FakeClock, settle
from tests.server.conftest import Rig
from tests.server.sockets import init, keys
from worldline.core.turns import HORIZON_S
from worldline.server.device import ACTIVE_S, Device

pytestmark = pytest.mark.anyio


class Users:
    """Tasks that use a device, and who was let in when."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.device = Device(self.clock)
        self.log: list[tuple[str, float]] = []
        self.inside = 0
        self.start = self.clock.now()

    async def use(self, name: str, work_s: float, *, deadline: float) -> float:
        """One turn of so many seconds; times count from the start. Returns how long it waited."""
        async with self.device.turn(name, deadline=self.start + deadline) as turn:
            self.inside += 1
            assert self.inside == 1, "two at a time"
            self.log.append((name, round(self.clock.now() - self.start, 6)))
            try:
                await self.clock.sleep(work_s)
            finally:
                self.inside -= 1
        return turn.waited_s

    async def walk(self, name: str, work_s: float, *, slack_s: float) -> None:
        """Ask again and again, each time with so much time left."""
        while True:
            now = self.clock.now() - self.start
            await self.use(name, work_s, deadline=now + slack_s)


async def test_turns_go_by_deadline_and_one_at_a_time() -> None:
    users = Users()
    async with asyncio.TaskGroup() as tasks:
        for name, deadline in (("a", 9.0), ("b", 3.0), ("c", 2.0)):
            tasks.create_task(users.use(name, 1.0, deadline=deadline))
        await settle()
        await users.clock.advance(5)
    assert users.log == [("a", 0.0), ("c", 1.0), ("b", 2.0)]
    assert users.device.busy_s == pytest.approx(3.0)
    assert users.device.user is None


async def test_who_waited_is_told_how_long() -> None:
    users = Users()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(users.use("first", 2.0, deadline=1.0))
        await settle()
        await users.clock.advance(0.5)
        second = tasks.create_task(users.use("second", 1.0, deadline=1.0))
        await settle()
        await users.clock.advance(5)
    assert first.result() == 0.0
    assert second.result() == pytest.approx(1.5)


async def test_a_cancelled_wait_leaves_no_trace() -> None:
    users = Users()
    first = asyncio.create_task(users.use("first", 1.0, deadline=1.0))
    gone = asyncio.create_task(users.use("gone", 1.0, deadline=1.0))
    last = asyncio.create_task(users.use("last", 1.0, deadline=9.0))
    await settle()
    gone.cancel()
    await settle()
    await users.clock.advance(5)
    await asyncio.gather(first, last)
    assert [name for name, _ in users.log] == ["first", "last"]
    assert (users.device.waiting, users.device.user) == (0, None)
    assert users.clock.sleeping == []


async def test_cancelled_in_the_moment_of_being_let_in() -> None:
    users = Users()
    first = asyncio.create_task(users.use("first", 1.0, deadline=1.0))
    unlucky = asyncio.create_task(users.use("unlucky", 1.0, deadline=2.0))
    last = asyncio.create_task(users.use("last", 1.0, deadline=9.0))
    await settle()
    first.cancel()  # leaves the device in the loop's next pass,
    await asyncio.sleep(0)
    assert users.device.user == "unlucky"  # which lets this one in, though it does not know yet
    unlucky.cancel()
    await settle()
    await users.clock.advance(5)
    await last
    assert [name for name, _ in users.log] == ["first", "last"]
    assert users.device.user is None


async def test_the_turns_of_others_are_known_for_a_while() -> None:
    users = Users()
    for name, length in (("a", 0.5), ("b", 0.25)):
        using = asyncio.create_task(users.use(name, length, deadline=9.0))
        await settle()
        await users.clock.advance(length)
        await using
    device = users.device
    assert [device.others_s(name) for name in "abc"] == [0.25, 0.5, 0.75]
    device.forget("b")
    assert [device.others_s(name) for name in "abc"] == [0.0, 0.5, 0.5]
    await users.clock.advance(ACTIVE_S)
    assert device.others_s("c") == 0.0


async def test_an_error_inside_lets_the_next_one_in() -> None:
    users = Users()
    with pytest.raises(RuntimeError):
        async with users.device.turn("a", deadline=0.0):
            raise RuntimeError
    async with users.device.turn("b", deadline=0.0) as turn:
        assert turn.waited_s == 0.0


async def test_three_sessions_that_overload_the_device_get_a_third_each() -> None:
    users = Users()
    walks = [asyncio.create_task(users.walk(name, 1.0, slack_s=0.75)) for name in "abc"]
    await settle()
    await users.clock.advance(90)
    for walk in walks:
        walk.cancel()
    await asyncio.wait(walks)
    counts = Counter(name for name, _ in users.log)
    assert max(counts.values()) - min(counts.values()) <= 1


async def test_a_pushy_session_starves_nobody() -> None:
    """The pushy one is always late; the patient one always has a minute left."""
    users = Users()
    pushy = asyncio.create_task(users.walk("pushy", 0.5, slack_s=-1e6))
    patient = asyncio.create_task(users.walk("patient", 0.5, slack_s=60.0))
    await settle()
    await users.clock.advance(100)
    for walk in (pushy, patient):
        walk.cancel()
    await asyncio.wait({pushy, patient})
    starts = [when for name, when in users.log if name == "patient"]
    waits = [b - a - 0.5 for a, b in zip([-0.5, *starts], starts, strict=False)]
    assert len(starts) >= 100 / (HORIZON_S + 1.5)
    assert max(waits) <= HORIZON_S + 1.0


async def test_a_mainline_chunk_waits_for_its_turn_and_shows_what_is_held_then(rig: Rig) -> None:
    device = rig.services.device
    async with device.turn("somebody else", deadline=0.0):
        socket = await rig.connect()
        socket.send(init(max_chunks=1))
        async with asyncio.timeout(LIMIT_S):
            while not device.waiting:
                await asyncio.sleep(0.001)
        socket.send(keys("w", event_id=1))
        await settle()
        assert rig.handle.requests == []
    chunk = await socket.chunk()
    assert chunk[-1].fields["event_id"] == 1
    assert rig.handle.requests[0].actions == (("w",),) * 3
    await socket.closed()


async def test_a_mainline_visitor_who_leaves_while_waiting_holds_nobody_up(rig: Rig) -> None:
    device = rig.services.device
    async with device.turn("somebody else", deadline=0.0):
        socket = await rig.connect()
        socket.send(init())
        async with asyncio.timeout(LIMIT_S):
            while not device.waiting:
                await asyncio.sleep(0.001)
        await socket.leave()
        assert device.waiting == 0
    assert device.user is None


async def test_work_that_can_wait_is_asked_to_leave_once_and_by_nobody_who_waited_before() -> None:
    users, asked = Users(), list[str]()
    device = users.device

    async def take(name: str) -> None:
        async with device.turn(name, deadline=0.0):
            pass

    async with device.turn("film", deadline=1e9, yields=lambda: asked.append("film")):
        assert asked == []
        visitors = [asyncio.create_task(take(name)) for name in "ab"]
        await settle()
        assert asked == ["film"]
    await asyncio.wait(visitors)
    async with device.turn("a", deadline=0.0):
        film = asyncio.create_task(_yielding(device, asked))
        await settle()
    await film
    assert asked == ["film"]


async def _yielding(device: Device, asked: list[str]) -> None:
    async with device.turn("film", deadline=1e9, yields=lambda: asked.append("again")):
        await settle()


async def test_work_that_can_wait_is_in_nobodys_plans() -> None:
    users = Users()
    for yields, planned in ((print, 0.0), (None, 2.0)):
        async with users.device.turn("film", deadline=0.0, yields=yields):
            await users.clock.advance(2.0)
        assert users.device.others_s("visitor") == planned


async def test_replicas_have_lanes_of_their_own() -> None:
    """Sessions of one replica take turns; those of another do not wait for them."""
    clock = FakeClock()
    device = Device(clock, lambda id: int(id[0]))
    log: list[tuple[str, float]] = []
    start = clock.now()

    async def use(name: str) -> None:
        async with device.turn(name, deadline=start + 9.0):
            log.append((name, clock.now() - start))
            await clock.sleep(1.0)

    async with asyncio.TaskGroup() as tasks:
        for name in ("0a", "0b", "1a", "1b"):
            tasks.create_task(use(name))
        await settle()
        await clock.advance(3)
    assert sorted(log) == [("0a", 0.0), ("0b", 1.0), ("1a", 0.0), ("1b", 1.0)]
    assert device.others_s("0c") == 2.0 and device.others_s("2") == 0.0
    assert device.user is None and device.turns == 4
