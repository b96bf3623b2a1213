"""The awaited SDK against a scripted server: opening, receipts, ends, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from tests.client.peer import LIMITS, OPENED, SEAT, Peer, client, frame, picture, ready
from tests.fakes import LIMIT_S, FakeClock, settle
from worldline.client import AsyncClient, AsyncWorld, ConnectionLostError, Receipt, RefusedError
from worldline.core.errors import ControlError, ProtocolError, SessionClosedError
from worldline.core.live.client import (
    Camera,
    ClientMessage,
    Enter,
    Hello,
    Keys,
    Leave,
    Pad,
    Ping,
    Playhead,
    Rejoin,
    Release,
    Shown,
    Watch,
)
from worldline.core.live.server import (
    Applied,
    Bye,
    Chunk,
    Failure,
    Notice,
    Pong,
    Queued,
    Received,
    StateChange,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def walking(peer: Peer, clock: FakeClock | None = None) -> AsyncGenerator[AsyncWorld]:
    """An open world."""
    world = client(peer, clock).world(picture(), "a lake")
    opening = asyncio.create_task(world.open())
    await greet(peer)
    await peer.next()
    peer.say(SEAT, OPENED)
    async with asyncio.timeout(LIMIT_S):
        await opening
    yield world
    await world.detach()


async def greet(peer: Peer) -> None:
    """Take a connection up to `ready`."""
    await peer.connected()
    hello = await peer.next()
    assert isinstance(hello, Hello)
    peer.say(ready())


async def sent(world: AsyncWorld, receipt: Receipt) -> Receipt:
    """Wait for the first receipt, but not for ever."""
    return await world.received(receipt, LIMIT_S)


async def test_a_world_is_asked_for_in_the_best_format_both_know() -> None:
    peer = Peer()
    world = client(peer).world(picture(), "a lake")
    opening = asyncio.create_task(world.open())
    await peer.connected()
    hello = await peer.next()
    assert isinstance(hello, Hello) and "jpeg" in hello.formats
    peer.say(ready(formats=("raw", "jpeg")))
    entering = await peer.next()
    assert isinstance(entering, Enter)
    assert (entering.prompt, entering.image, entering.format) == ("a lake", picture(), "raw")
    peer.say(SEAT, OPENED)
    await asyncio.wait_for(opening, LIMIT_S)
    assert (world.id, world.token, world.state) == ("w1", "secret", "live")
    await world.detach()
    assert peer.lines[0].closed


async def test_a_queued_visitor_hears_the_position_until_there_is_a_place() -> None:
    peer, heard = Peer(), list[int]()
    world = client(peer).world(picture(), "a lake", on_wait=lambda q: heard.append(q.position))
    opening = asyncio.create_task(world.open())
    await greet(peer)
    await peer.next()
    for position in (2, 1):
        peer.say(Queued(position=position, ahead=position - 1, retry_after_ms=1000))
        await settle()
    assert (world.position, world.state) == (1, "queued")
    peer.say(SEAT, OPENED)
    await asyncio.wait_for(opening, LIMIT_S)
    assert heard == [2, 1]
    assert world.position == 0
    await world.detach()


async def test_frames_come_in_order_as_pixels_and_are_reported() -> None:
    peer, clock = Peer(), FakeClock()
    async with walking(peer, clock) as world:
        peer.say(*(frame(n, shade=n) for n in range(3)))
        seen = []
        async for picture_ in world.frames():
            seen.append(picture_)
            if len(seen) == 3:
                break
        assert [p.number for p in seen] == [0, 1, 2]
        assert [int(p.pixels.mean()) for p in seen] == [0, 1, 2]
        assert seen[0].pixels.shape == (6, 8, 3) and seen[0].pixels.dtype == np.uint8
        assert world.newest is seen[-1]
        heads = [m for m in peer.lines[0].quiet if isinstance(m, Playhead)]
        # All three were taken at once, yet no time passed: an eye would still see the first.
        assert (heads[-1].frame, heads[-1].lead_ms) == (0, pytest.approx(2 / 16 * 1000))
        await clock.advance(0.1)
        assert world._talk.playhead().frame == 1  # pyright: ignore[reportPrivateUsage]


async def test_newest_leaves_out_what_waited() -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.say(*(frame(n) for n in range(5)))
        await settle()
        assert (await anext(world.frames(newest=True))).number == 4
        assert world._talk.dropped == 4  # pyright: ignore[reportPrivateUsage]


async def test_a_press_is_one_message_and_gets_both_receipts() -> None:
    peer = Peer()
    async with walking(peer) as world:
        receipt = await world.press("w")
        keys = await peer.next()
        assert isinstance(keys, Keys) and (keys.id, keys.held) == (1, ("w",))
        assert await world.press("w") is receipt  # nothing changed: nothing is said
        peer.say(Received(id=1, server_ms=5.0))
        await sent(world, receipt)
        peer.say(Applied(id=1, chunk=2, latent_frame=6, server_ms=9.0))
        await world.applied(receipt, LIMIT_S)
        assert receipt.applied is not None and receipt.applied.chunk == 2
        peer.say(frame(24, input=1))
        await anext(world.frames())
        assert (receipt.stage, receipt.shown) == ("shown", 24)
        shown = await peer.next()
        assert isinstance(shown, Shown) and (shown.id, shown.frame) == (1, 24)


async def test_holding_ends_with_its_context() -> None:
    peer = Peer()
    async with walking(peer) as world:
        async with world.hold("w", "l"):
            held = await peer.next()
        let_go = await peer.next()
        assert isinstance(held, Keys) and held.held == ("w", "l")
        assert isinstance(let_go, Keys) and let_go.held == ()


async def test_release_without_keys_lets_go_of_everything_and_ids_rise() -> None:
    peer = Peer()
    async with walking(peer) as world:
        await world.press("w")
        await world.release()
        await world.press("w")
        messages = [await peer.next() for _ in range(3)]
        assert [type(m) for m in messages] == [Keys, Release, Keys]
        assert [getattr(m, "id", 0) for m in messages] == [1, 2, 3]


async def test_sticks_and_paths_are_checked_before_they_are_sent() -> None:
    peer = Peer()
    async with walking(peer) as world:
        for wrong in (lambda: world.press("q"), lambda: world.script([["x"]])):
            with pytest.raises(ControlError):
                wrong().close()
        with pytest.raises(ControlError):
            world.move(x=1.5).close()
        with pytest.raises(ControlError):
            world.move(x=float("nan")).close()
        with pytest.raises(ControlError):
            world.follow(np.full((2, 3, 4), np.inf)).close()
        poses = np.tile(np.eye(4), (2, 1, 1))
        await world.move(z=1)
        await world.follow(poses, rate=8, loop=True)
        pad, path = await peer.next(), await peer.next()
        assert isinstance(pad, Pad) and (pad.x, pad.z) == (0.0, 1.0)
        assert isinstance(path, Camera) and path.poses[1] == tuple(poses[1, :3].ravel())


async def test_a_refused_input_says_why_and_the_world_goes_on() -> None:
    peer = Peer()
    async with walking(peer) as world:
        receipt = await world.prompt("x" * 5)
        peer.say(Failure(code="invalid_prompt", message="no", retryable=False, id=1, got="5"))
        with pytest.raises(RefusedError, match=r"invalid_prompt.*got 5"):
            await world.applied(receipt, LIMIT_S)
        assert receipt.stage == "refused"
        assert world.state == "live"


async def test_a_refusal_while_opening_is_raised() -> None:
    peer = Peer()
    world = client(peer).world(picture(), "a lake")
    opening = asyncio.create_task(world.open())
    await greet(peer)
    await peer.next()
    peer.say(Failure(code="capacity", message="full", retryable=True, retry_after_ms=1500))
    with pytest.raises(RefusedError, match="full") as caught:
        await asyncio.wait_for(opening, LIMIT_S)
    assert caught.value.retry_after_s == 1.5
    assert peer.lines[0].closed


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    peer = Peer()
    peer.refuse = 1
    with pytest.raises(ConnectionLostError, match="nobody listens"):
        await client(peer).world(picture(), "a lake").open()
    assert peer.dialled == 1


async def test_bye_ends_the_frames_without_an_error() -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.say(frame(0), Bye(code="complete", message="done"))
        assert [p.number async for p in world.frames()] == [0]
        with pytest.raises(SessionClosedError):
            await world.press("w")


async def test_a_fatal_error_ends_the_frames_with_it() -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.say(Failure(code="worker_died", message="gone", retryable=True, fatal=True))
        with pytest.raises(RefusedError, match="worker_died"):
            [p async for p in world.frames()]


async def test_events_are_kept_and_the_newest_stands() -> None:
    peer = Peer()
    chunk = Chunk(
        index=3,
        frames=12,
        input=1,
        stages={"denoise": 20.0},
        bytes=100,
        lead_ms=300.0,
        real_time_factor=0.5,
        misses=0,
    )
    async with walking(peer) as world:
        peer.say(
            Notice(code="idle", message="soon", in_ms=5000), StateChange(state="paused"), chunk
        )
        names: list[str] = []
        async for event in world.events():
            names.append(type(event).__name__)
            if names[-1] == "Chunk":
                break
        assert names == ["Ready", "Seat", "Opened", "Notice", "StateChange", "Chunk"]
        assert (world.state, world.stats) == ("paused", chunk)


async def test_leaving_says_so_and_waits_for_the_end() -> None:
    peer = Peer()
    world = client(peer).watch("w9")
    opening = asyncio.create_task(world.open())
    await greet(peer)
    watching = await peer.next()
    assert isinstance(watching, Watch) and watching.world == "w9"
    peer.say(SEAT, OPENED)
    await opening
    leaving = asyncio.create_task(world.leave())
    assert isinstance(await peer.next(), Leave)
    peer.say(Bye(code="left", message="bye"))
    await asyncio.wait_for(leaving, LIMIT_S)
    assert world.state == "closed"


async def test_a_lost_connection_comes_back_with_the_token_and_nothing_held() -> None:
    peer, clock = Peer(), FakeClock()
    async with walking(peer, clock) as world:
        received, unread = await world.press("w"), await world.press("l")
        first: list[ClientMessage] = [await peer.next(), await peer.next()]
        assert [type(m) for m in first] == [Keys, Keys]
        peer.say(Received(id=1, server_ms=0.0))
        await sent(world, received)
        peer.refuse = 2
        peer.drop()
        await clock.until_sleeping(0.25)
        assert (received.stage, unread.stage) == ("received", "lost")
        pressing = asyncio.create_task(world.press("a"))  # waits for the connection
        await clock.advance(0.25)
        await clock.until_sleeping(0.5)
        await clock.advance(0.5)
        await peer.connected()
        await greet_again(peer)
        again = await peer.next()
        assert isinstance(again, Keys)
        assert (again.id, again.held) == (3, ("a",))  # ids go on, the old keys are up
        await asyncio.wait_for(pressing, LIMIT_S)
        peer.say(frame(30))
        assert (await anext(world.frames())).number == 30
        assert world.reconnects == 1


async def greet_again(peer: Peer) -> None:
    """A second connection, up to `opened`."""
    assert isinstance(await peer.next(), Hello)
    peer.say(ready())
    rejoin = await peer.next()
    assert isinstance(rejoin, Rejoin) and rejoin.token == "secret"
    peer.say(SEAT, OPENED)


async def test_attempts_end_with_the_grace_time() -> None:
    peer, clock = Peer(), FakeClock()
    async with walking(peer, clock) as world:
        peer.refuse = 10_000
        peer.drop()
        frames = asyncio.create_task(anext(world.frames()))
        for _ in range(200):
            await settle()
            if frames.done():
                break
            await clock.advance(1.0)
        with pytest.raises(ConnectionLostError):
            await asyncio.wait_for(frames, LIMIT_S)
        assert clock.now() - 1000.0 >= LIMITS.grace_ms / 1000


@pytest.mark.parametrize("code", [4001, 4999])
async def test_a_close_code_of_the_dialect_is_an_end_and_no_loss(code: int) -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.drop(code, "taken elsewhere")
        with pytest.raises(RefusedError, match="taken elsewhere"):
            await anext(world.frames())
        assert peer.dialled == 1


async def test_the_servers_clock_is_known_and_silence_is_a_loss() -> None:
    peer, clock = Peer(), FakeClock()
    async with walking(peer, clock) as world:
        ping = next(m for m in peer.lines[0].quiet if isinstance(m, Ping))
        peer.say(Pong(at_ms=ping.at_ms, server_ms=ping.at_ms + 500.0))
        await settle()
        assert world.clock.offset == pytest.approx(500.0)
        for _ in range(10):  # nothing is heard for more than two heartbeats
            await clock.advance(5.0)
            await settle()
        assert peer.lines[0].closed
        assert world.reconnects == 1 and len(peer.lines) == 2, "our own close is no end"


async def test_what_a_newer_server_says_is_passed_over() -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.lines[0].to_client.put_nowait(b"\x81\xa4type\xa5dance")
        peer.say(frame(1))
        assert (await anext(world.frames())).number == 1


@pytest.mark.parametrize("data", [b"\x81\xa4type\xa3bye", b"\xc1", b"\x93\x01\x02\x03"])
async def test_what_cannot_be_read_ends_the_world_with_a_reason(data: bytes) -> None:
    peer = Peer()
    async with walking(peer) as world:
        peer.lines[0].to_client.put_nowait(data)
        with pytest.raises(ProtocolError):
            await anext(world.frames())


async def test_the_key_of_a_server_is_said_in_hello_and_printed_nowhere() -> None:
    peer = Peer()
    made = AsyncClient("http://peer.test", token="a-very-secret-key")
    made._dial = peer  # pyright: ignore[reportPrivateUsage]
    world = made.world(picture(), "a lake")
    opening = asyncio.create_task(world.open())
    await peer.connected()
    hello = await peer.next()
    assert isinstance(hello, Hello) and hello.token == "a-very-secret-key"
    peer.say(ready())
    await peer.next()
    peer.say(SEAT, OPENED)
    await asyncio.wait_for(opening, LIMIT_S)
    for thing in (made, world, vars(made), vars(world._talk)):  # pyright: ignore[reportPrivateUsage]
        assert "a-very-secret-key" not in repr(thing)
    await world.detach()
