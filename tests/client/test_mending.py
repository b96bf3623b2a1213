"""What passes by itself is a loss to be mended: refusals, codes, a connection dropped at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from msgspec import UNSET, UnsetType

from tests.client import peer as peers
from tests.client.peer import OPENED, SEAT, Peer, client, frame, picture, ready
from tests.fakes import LIMIT_S, FakeClock, settle
from worldline.client import AsyncWorld, Patience, RefusedError
from worldline.client import keeper as keeping
from worldline.client.mending import Mending
from worldline.core.live.client import Hello, Rejoin, Watch
from worldline.core.live.server import Failure

pytestmark = pytest.mark.anyio

RETRY_MS = 7000
GRACE_S = peers.LIMITS.grace_ms / 1000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def world(peer: Peer, clock: FakeClock) -> AsyncGenerator[AsyncWorld]:
    """An open world."""
    entered = client(peer, clock).world(picture(), "a lake")
    opening = asyncio.create_task(entered.open())
    await peer.connected()
    peer.say(ready(), SEAT, OPENED)
    await asyncio.wait_for(opening, LIMIT_S)
    assert isinstance(await peer.next(), Hello)
    await peer.next()
    yield entered
    await entered.detach()


async def back(peer: Peer) -> None:
    """The coming connection is let in again."""
    await peer.connected()
    assert isinstance(await peer.next(), Hello)
    peer.say(ready())
    rejoin = await peer.next()
    assert isinstance(rejoin, Rejoin) and rejoin.token == "secret"
    peer.say(SEAT, OPENED)


def passing(code: str, *, retry_after_ms: int | UnsetType = UNSET) -> Failure:
    return Failure(
        code=code,
        message="not now",
        retryable=True,
        fatal=True,
        retry_after_ms=retry_after_ms,
    )


@pytest.mark.parametrize("code", [4408, 4429, 4503])
async def test_a_close_that_passes_is_mended(peer: Peer, world: AsyncWorld, code: int) -> None:
    peer.drop(code, "asleep")
    await back(peer)
    peer.say(frame(12))
    assert (await asyncio.wait_for(anext(world.frames()), LIMIT_S)).number == 12
    assert world.reconnects == 1


async def test_an_error_that_passes_is_mended_when_the_server_says(
    peer: Peer, clock: FakeClock, world: AsyncWorld
) -> None:
    peer.say(passing("rate_limited", retry_after_ms=RETRY_MS))
    await clock.until_sleeping(RETRY_MS / 1000)
    assert peer.dialled == 1 and peer.lines[0].closed
    await clock.advance(RETRY_MS / 1000)
    await back(peer)
    peer.say(frame(12))
    assert (await asyncio.wait_for(anext(world.frames()), LIMIT_S)).number == 12


async def test_who_is_sent_away_for_all_the_grace_time_hears_why(
    peer: Peer, clock: FakeClock, world: AsyncWorld
) -> None:
    began = clock.now()
    peer.say(passing("rate_limited"))
    frames = asyncio.create_task(anext(world.frames()))
    for _ in range(200):
        await settle()
        if frames.done():
            break
        if not peer.lines[-1].closed:
            peer.say(passing("rate_limited"))
        await clock.advance(1.0)
    with pytest.raises(RefusedError, match="rate_limited"):
        await asyncio.wait_for(frames, LIMIT_S)
    assert clock.now() - began >= GRACE_S
    assert peer.dialled < 30, "ever less often"


async def test_a_wait_beyond_the_grace_time_is_the_end(peer: Peer, world: AsyncWorld) -> None:
    peer.say(passing("rate_limited", retry_after_ms=int(2000 * GRACE_S)))
    with pytest.raises(RefusedError, match="rate_limited"):
        await asyncio.wait_for(anext(world.frames()), LIMIT_S)
    assert peer.dialled == 1


async def test_a_world_that_went_with_the_connection_ends_by_what_broke_it(
    peer: Peer, world: AsyncWorld
) -> None:
    peer.say(passing("timed_out"))
    await peer.connected()
    gone = Failure(code="unknown_world", message="ended", retryable=False)
    peer.say(ready(), gone)
    with pytest.raises(RefusedError, match="timed_out"):
        await asyncio.wait_for(anext(world.frames()), LIMIT_S)


async def test_a_server_that_accepts_and_drops_is_dialled_less_and_less(
    peer: Peer, clock: FakeClock, world: AsyncWorld
) -> None:
    peer.drop()
    for pause in (0.25, 0.5, 1.0):
        await peer.connected()
        peer.drop()
        await clock.until_sleeping(pause)
        await clock.advance(pause)
    assert world.reconnects == 4 and peer.dialled == 5


async def test_a_spectator_watches_again(peer: Peer, clock: FakeClock) -> None:
    watching = client(peer, clock).watch("w9")
    opening = asyncio.create_task(watching.open())
    await peer.connected()
    peer.say(ready(), SEAT, OPENED)
    await asyncio.wait_for(opening, LIMIT_S)
    watching._talk.token = None  # pyright: ignore[reportPrivateUsage]
    peer.drop(4408, "asleep")
    await peer.connected()
    assert isinstance(await peer.next(), Hello)
    peer.say(ready())
    assert isinstance(await peer.next(), Watch)
    await watching.detach()


async def test_frames_that_nobody_fetches_are_no_silence(
    peer: Peer, clock: FakeClock, world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MOST_WAITING_BYTES", 1)
    peer.say(frame(0), frame(1))
    for _ in range(10):  # more than two heartbeats
        await settle()
        await clock.advance(5.0)
    assert world.reconnects == 0 and not peer.lines[0].closed
    frames = world.frames()
    assert [(await anext(frames)).number for _ in range(2)] == [0, 1]


def test_the_time_that_a_world_is_kept_begins_with_the_last_loss_of_it() -> None:
    mending = Mending(Patience(first_s=1.0, most_s=4.0))
    assert mending.pause(0.0, 60.0) == 0.0, "nothing was lost"
    mending.lost(10.0, lived_s=9.0, after_s=0.0)
    assert [mending.pause(10.0, 60.0) for _ in range(4)] == [0.0, 1.0, 2.0, 4.0]
    mending.lost(50.0, lived_s=None, after_s=0.0)
    assert mending.pause(69.9, 60.0) == 4.0
    assert mending.pause(70.0, 60.0) is None
    mending.lost(60.0, lived_s=0.5, after_s=0.0)
    assert mending.pause(70.0, 60.0) == 4.0, "it was there, yet not for long"
    mending.lost(80.0, lived_s=4.0, after_s=3.0)
    assert [mending.pause(80.0, 60.0) for _ in range(2)] == [3.0, 3.0]
