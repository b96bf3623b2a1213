"""Worlds that wait lend their seats, where that is allowed, and come back first."""

from __future__ import annotations

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.wire import LiveSocket
from worldline.core.live.client import (
    Keys,
    Leave,
    Pause,
    Resume,
)
from worldline.core.live.server import (
    Opened,
    Queued,
    Received,
)

pytestmark = pytest.mark.anyio


async def waiting_in_line(start: Start, **settings: object) -> tuple[Rig, LiveSocket, LiveSocket]:
    """One seat that may be lent, its holder, and somebody who waits."""
    rig = await start(seats=1, lend_seats=1, heartbeat_s=0, **settings)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    return rig, first, second


async def test_a_paused_world_lends_its_seat_and_comes_back_first(start: Start) -> None:
    rig, first, second = await waiting_in_line(start, max_lifetime_s=0)
    third = rig.connect()
    await third.queue()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(11.9)
    assert (len(rig.worlds.made), rig.worlds.made[0].state) == (1, "parked")
    await rig.clock.advance(0.2)
    await second.until(Opened)
    first.send(Resume(id=2))
    assert (await first.until(Queued)).position == 1
    await first.until(Received)
    assert (await third.until(Queued, position=2)).ahead == 1
    assert [world.state for world in rig.worlds.made] == ["parked", "live"]
    second.send(Keys(id=1, held=("w",)))
    await second.until(Received)
    await rig.clock.advance(100)  # nobody is idle who waits in line
    second.send(Leave())
    await second.closed()
    while rig.worlds.made[0].state != "live":
        await settle()
    assert rig.services.seats.taken == 1
    first.send(Leave())
    await third.until(Opened)


async def test_a_lost_world_lends_its_seat_and_is_still_there(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    token = first.seen[1].token
    await first.leave()
    await rig.clock.advance(12.1)
    await second.until(Opened)
    back = rig.connect()
    await back.rejoin(token)
    assert (await back.until(Queued)).position == 1
    assert (await back.until(Opened)).state == "parked"
    second.send(Leave())
    await second.closed()
    while rig.worlds.made[0].state != "live":
        await settle()


async def test_a_world_that_lent_its_seat_ends_without_it(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    await first.leave()
    await rig.clock.advance(12.1)
    await second.until(Opened)
    await rig.clock.advance(48)
    second.send(Keys(id=1, held=("w",)))
    await second.until(Received)
    assert rig.worlds.made[0].closed_for == "holder_gone"
    assert rig.services.seats.taken == 1
    second.send(Leave())
    await second.closed()
    await rig.empty()


async def test_a_world_that_parks_slowly_lends_its_seat_when_it_is_done(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    world = rig.worlds.last
    world.parks = False
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(19.9)
    assert (len(rig.worlds.made), world.state) == (1, "paused")
    world.parks = True
    world.park()
    await rig.clock.advance(2.2)
    await second.until(Opened)


async def test_who_was_away_when_the_seat_was_free_has_it_on_coming_back(start: Start) -> None:
    rig, first, second = await waiting_in_line(start)
    token = first.seen[1].token
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(12.1)
    await second.until(Opened)
    first.send(Resume(id=2))
    assert (await first.until(Queued)).position == 1
    await first.leave()
    second.send(Leave())
    await second.closed()
    while rig.services.seats.taken:
        await settle()
    back = rig.connect()
    await back.rejoin(token)
    assert (await back.until(Opened)).state == "live"
    assert (rig.services.seats.taken, rig.house.waiting) == (1, 0)


async def test_a_seat_is_not_lent_without_being_allowed(start: Start) -> None:
    rig = await start(seats=1, heartbeat_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    await second.queue()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(30)
    first.send(Resume(id=2))
    await first.until(Received)
    assert [world.state for world in rig.worlds.made] == ["live"]


async def test_who_comes_later_finds_a_seat_that_can_be_lent(start: Start) -> None:
    rig = await start(seats=1, lend_seats=1, heartbeat_s=0)
    first, second = rig.connect(), rig.connect()
    await first.walk()
    first.send(Pause(id=1))
    await first.until(Received)
    await settle()
    await rig.clock.advance(20)
    await second.walk()
    assert [world.state for world in rig.worlds.made] == ["parked", "live"]
