"""Spectators: many see one world from one encode, and the controls pass by request."""

from __future__ import annotations

import pytest

from tests.fakes import settle
from tests.server.live.conftest import Rig, Start
from tests.server.live.test_staying import heard
from tests.server.live.wire import LiveSocket
from worldline.core.live.client import (
    AskControl,
    GiveControl,
    Keys,
    Leave,
    Prompt,
    Rejoin,
    Settings,
    Watch,
)
from worldline.core.live.server import (
    Bye,
    ControlOf,
    Failure,
    Frame,
    Notice,
    Opened,
    Received,
    Seat,
)

pytestmark = pytest.mark.anyio


async def two(rig: Rig) -> tuple[LiveSocket, LiveSocket, Seat]:
    """A holder and a spectator."""
    holder, spectator = rig.connect(), rig.connect()
    seat = await holder.walk()
    await spectator.watch(seat.world)
    return holder, spectator, seat


async def refusal(socket: LiveSocket) -> Failure:
    """The next error."""
    while not isinstance(message := await socket.next(), Failure):
        pass
    return message


async def test_a_spectator_sees_the_world_and_holds_nothing(rig: Rig) -> None:
    holder, spectator = rig.connect(), rig.connect()
    seat = await holder.walk()
    opened = await spectator.watch(seat.world)
    assert not opened.controls
    assert not [m for m in spectator.seen if isinstance(m, Seat) and m.token]
    assert (await spectator.until(ControlOf)).viewers == 2
    assert (await holder.until(ControlOf, viewers=2)).yours
    await rig.worlds.last.chunk()
    mine, theirs = await holder.until(Frame), await spectator.until(Frame)
    assert mine.payload == theirs.payload
    spectator.send(Keys(id=4, held=("w",)))
    error = await refusal(spectator)
    assert (error.code, error.id, error.fatal) == ("no_controls", 4, False)
    assert rig.worlds.last.inputs == []


async def test_twenty_viewers_cost_one_encode(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = rig.connect()
    seat = await holder.walk()
    viewers = [rig.connect() for _ in range(20)]
    for viewer in viewers:
        await viewer.watch(seat.world)
    from worldline.server.live import renditions

    counted: list[int] = []
    encode_jpeg = renditions.jpeg.encode_jpeg

    def counting(frame, quality):
        counted.append(1)
        return encode_jpeg(frame, quality)

    monkeypatch.setattr(renditions.jpeg, "encode_jpeg", counting)
    await rig.worlds.last.chunk()
    for viewer in viewers:
        await viewer.until(Frame)
    assert len(counted) == 1


@pytest.mark.parametrize("world", ["", "nope", "x" * 128])
async def test_a_world_that_is_not_there_cannot_be_watched(rig: Rig, world: str) -> None:
    socket = rig.connect()
    await socket.hello()
    socket.send(Watch(world=world))
    assert (await refusal(socket)).code == "unknown_world"


async def test_a_private_world_cannot_be_watched(rig: Rig) -> None:
    holder, spectator = rig.connect(), rig.connect()
    seat = await holder.walk(spectators=False)
    await spectator.hello()
    spectator.send(Watch(world=seat.world))
    assert (await refusal(spectator)).code == "unknown_world"


async def test_viewers_are_limited(start: Start) -> None:
    rig = await start(max_viewers=1)
    _, _, seat = await two(rig)
    late = rig.connect()
    await late.hello()
    late.send(Watch(world=seat.world))
    error, code = await late.closed()
    assert (error.code, code) == ("client_limit", 4429)


async def test_a_spectator_leaves_and_the_world_goes_on(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    spectator.send(Leave())
    assert (await spectator.closed())[1] == 4001
    assert (await holder.until(ControlOf, viewers=1)).yours
    assert rig.worlds.last.state == "live"


async def test_when_the_holder_leaves_the_world_ends_for_all(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    holder.send(Leave())
    assert (await spectator.closed())[1] == 4001
    await rig.empty()


async def test_control_is_asked_for_and_given(rig: Rig) -> None:
    holder, spectator, seat = await two(rig)
    holder.send(Keys(id=1, held=("w",)))
    await holder.until(Received)
    spectator.send(AskControl(id=1))
    await spectator.until(Received, id=1)
    assert (await holder.until(Notice)).code == "control_asked"
    asked = await holder.until(ControlOf)
    assert asked.yours and len(asked.asking) == 1
    holder.send(GiveControl(id=2, viewer=asked.asking[0]))
    await holder.until(Received, id=2)
    given = await spectator.until(Seat)  # with a token of its own: it may come back
    assert given.token and given.token != seat.token
    assert (await spectator.until(ControlOf, yours=True)).asking == ()
    assert rig.worlds.last.held == () and rig.worlds.last.passed == 1
    spectator.send(Keys(id=2, held=("s",)))
    await spectator.until(Received, id=2)
    holder.send(Keys(id=3, held=("w",)))
    assert (await refusal(holder)).code == "no_controls"
    await rig.worlds.last.chunk()
    assert rig.worlds.last.walked == [("s",)]


async def test_the_token_of_who_gave_the_controls_away_only_watches(rig: Rig) -> None:
    holder, spectator, seat = await two(rig)
    spectator.send(AskControl(id=1))
    await holder.until(Notice)
    asked = await holder.until(ControlOf)
    holder.send(GiveControl(id=1, viewer=asked.asking[0]))
    await spectator.until(ControlOf, yours=True)
    await holder.leave()
    assert rig.worlds.last.state == "live"  # its holder is there
    back = rig.connect()
    await back.rejoin(seat.token)
    assert not (await back.until(Opened)).controls


async def test_controls_that_go_to_and_fro_leave_few_tokens(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    sockets = {True: holder, False: spectator}
    names = {True: rig.house.rooms[0].holder, False: ""}
    names[False] = next(name for name in rig.house.rooms[0].guests if name != names[True])
    for number in range(1, 40):
        giver = number % 2 == 1
        sockets[giver].send(GiveControl(id=number, viewer=names[not giver] or ""))
        await sockets[giver].until(Received, id=number)
    tokens = [m.token for s in (holder, spectator) for m in s.seen if isinstance(m, Seat)]
    assert len({token for token in tokens if token}) > 20
    back = [rig.connect() for _ in tokens]
    known = 0
    for socket, token in zip(back, tokens, strict=True):
        await socket.hello()
        socket.send(Rejoin(token=token or ""))
        known += not isinstance(await socket.next(), Failure)
    assert 7 <= known <= 8  # the newest of all may not have been read yet


async def test_giving_to_nobody_is_refused(rig: Rig) -> None:
    holder, _, _ = await two(rig)
    holder.send(GiveControl(id=5, viewer="nobody"))
    error = await refusal(holder)
    assert (error.code, error.id) == ("session_error", 5)


async def test_who_asked_first_has_the_controls_when_the_holder_stays_away(rig: Rig) -> None:
    holder, first, seat = await two(rig)
    second = rig.connect()
    await second.watch(seat.world)
    await holder.leave()
    gone = await first.until(Notice)
    assert (gone.code, gone.in_ms) == ("holder_gone", 60_000)
    first.send(AskControl(id=1))
    await first.until(Received)
    second.send(AskControl(id=1))
    await second.until(Received)
    await rig.clock.advance(20)
    await heard(first)
    await heard(second)
    await rig.clock.advance(20)
    await heard(first)
    await heard(second)
    await rig.clock.advance(21)
    assert (await first.until(Seat)).token
    assert (await first.until(ControlOf, yours=True)).viewers == 2
    assert rig.worlds.last.state == "live"
    await first.leave()
    assert rig.worlds.last.state in ("paused", "parked")
    await rig.clock.advance(20)
    await heard(second)
    await rig.clock.advance(20)
    await heard(second)
    await rig.clock.advance(21)
    assert (await second.until(Seat)).token


async def test_without_anybody_who_asks_the_world_ends_after_the_grace_time(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    await holder.leave()
    for _ in range(3):
        await rig.clock.advance(20)
        await settle()
        if not spectator.task.done() and rig.house.rooms:
            spectator.send_bytes(b"")
            await settle()
    bye, code = await spectator.closed()
    assert isinstance(bye, Bye)
    assert (bye.code, code) == ("holder_gone", 4410)
    await rig.empty()


async def test_the_holder_comes_back_and_the_spectators_know(rig: Rig) -> None:
    holder, spectator, seat = await two(rig)
    await holder.leave()
    assert (await spectator.until(Notice)).code == "holder_gone"
    back = rig.connect()
    await back.rejoin(seat.token)
    assert (await spectator.until(Notice)).code == "holder_back"
    spectator.send(AskControl(id=1))
    await spectator.until(Received)
    assert (await back.until(ControlOf, yours=True)).viewers == 2


async def test_each_viewer_has_its_own_format(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    spectator.send(Settings(id=1, format="raw"))
    await spectator.until(Received, id=1)
    spectator.send(Settings(id=2, speed=0.5))
    assert (await refusal(spectator)).code == "no_controls"
    await rig.worlds.last.chunk()
    assert (await spectator.until(Frame)).format == "raw"
    assert (await holder.until(Frame)).format == "jpeg"


async def test_a_slow_spectator_costs_nobody_anything(rig: Rig) -> None:
    holder, spectator, _ = await two(rig)
    spectator.stall()
    for number in range(1, 200):
        holder.send(Prompt(id=number, text="a lake"))
        await holder.until(Received, id=number)
        if number % 4 == 0:
            await rig.worlds.last.chunk()
            await holder.until(Frame)
            await rig.clock.advance(0.25)
    spectator.flow()
    newest = rig.worlds.last.frames - 1
    await rig.worlds.last.chunk()
    seen = await spectator.until(Frame)
    while seen.number < newest:  # one that was on its way, then the newest
        seen = await spectator.until(Frame)
    assert len([m for m in spectator.seen if isinstance(m, Frame)]) <= 4
