"""`worldline.v1` against anything: no crash, every refusal typed, nobody else's frames changed."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from tests import worlds
from tests.fuzz.arena import AT_ONCE, MANY, PATIENCE_S, run
from tests.fuzz.grammar import EDGES, bytes_of, message_of, simple
from tests.server.live.wire import LiveSocket, wish
from tests.server.sockets import picture
from worldline.core.errors import WorldlineError, error_classes
from worldline.core.live import ClientMessage, ServerMessage
from worldline.core.live.client import Hello, Playhead, Watch
from worldline.core.live.codes import Close
from worldline.core.live.server import Bye, Failure, Frame, Pong, Ready, Seat
from worldline.core.walked import Walked
from worldline.server.live.talk import Talk

FRAMES = 24  # that the bystander looks at: two chunks
WORLD = b"W" * 12  # stands for the bystander's world, as long as a real name
IMAGES = (picture(), picture("red", (300, 2)), b"", picture()[:50], b"\x89PNG\r\n\x1a\n")
START = worlds.start(picture=picture(), width=64, height=48, window=9)
FILE = Walked(START, worlds.made(), worlds.chunks()).encode()
FILES = (FILE, FILE[:-1], FILE[:200] + b"?" + FILE[201:], worlds.walked().encode(), b"", b"RIFF")
DECODER = msgspec.msgpack.Decoder(ServerMessage)
STRUCTS: tuple[type[msgspec.Struct], ...] = get_args(ClientMessage)
sizes = st.none() | st.sampled_from((16, 64, 128, 15, 0, -1, 2**31))
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "image": st.sampled_from(IMAGES),
    "width": sizes,
    "height": sizes,
    "world": st.just(WORLD.decode()) | st.text(max_size=12) | st.sampled_from(FILES),
    "at_end": st.booleans() | simple,
    "chunk": st.none() | st.integers(0, 3) | st.sampled_from(EDGES),
    "seconds": st.none() | st.floats(0, 3) | simple,
    "id": st.integers(1, 40) | st.sampled_from(EDGES),
    "version": st.just(1) | simple,
    "token": st.none() | st.text(max_size=12),
}
messages = bytes_of(st.one_of([message_of(struct, KNOWN) for struct in STRUCTS]))
said = st.lists(messages | st.text(max_size=10), min_size=AT_ONCE, max_size=AT_ONCE)
OPENINGS: tuple[tuple[ClientMessage, ...], ...] = (
    (),
    (Hello(),),
    (Hello(), wish(format="jpeg")),
    (Hello(), wish(format="h264")),
    (Hello(), Watch(world=WORLD.decode())),
)
CODES = set(error_classes()) - {WorldlineError.code}


async def walk(app: Starlette) -> tuple[LiveSocket, str]:
    """The bystander, in a world."""
    bystander = LiveSocket(app, host="10.0.0.1")
    seat = await bystander.walk(format="raw", seed=5)
    return bystander, seat.world


async def look(bystander: LiveSocket) -> dict[int, int]:
    """Digests of the bystander's next frames by their number."""
    found: dict[int, int] = {}
    while len(found) < FRAMES:
        frame = await bystander.until(Frame)
        found[frame.number] = hash(frame.payload)
    return found


@functools.cache
def undisturbed() -> dict[int, int]:
    """What the bystander sees alone, from its first frame on."""

    async def scene(app: Starlette) -> dict[int, int]:
        bystander, _ = await walk(app)
        seen = await look(bystander)
        await bystander.leave()
        return seen

    return run(scene)


class Visitor:
    """Says anything; a closed connection is followed by another."""

    def __init__(self, app: Starlette, world: str) -> None:
        self._app = app
        self._world = world.encode()
        self._socket: LiveSocket | None = None
        self.answers: list[Any] = []

    async def say(self, thing: bytes | str, *, opening: tuple[ClientMessage, ...]) -> None:
        """Send it; on a new connection first say `opening`, as a client would."""
        if self._socket is None or self._socket.task.done():
            await self.hang_up()
            self._socket = LiveSocket(self._app, host="10.0.0.2")
            await self._socket.accepted()
            for message in opening:
                self._send(msgspec.msgpack.encode(message))
        if isinstance(thing, str):
            self._socket.send_text(thing)
        else:
            self._send(thing)
        for _ in range(5):
            await asyncio.sleep(0)

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.send_bytes(data.replace(WORLD, self._world))

    async def hang_up(self) -> None:
        """Leave, and check everything that was answered."""
        if self._socket is not None:
            await self._socket.leave()
            self.answers += check(self._socket)
            self._socket = None


def check(socket: LiveSocket) -> list[Any]:
    """Every answer can be read, every refusal has a code of ours, every end a code of the wire."""
    found: list[Any] = []
    assert not socket.task.cancelled() and socket.task.exception() is None
    for event in socket.unread():
        if event["type"] == "websocket.close":
            Close(event["code"])
            assert isinstance(found[-1], Bye | Failure), found[-1:]
            continue
        message = DECODER.decode(event["bytes"])
        if isinstance(message, Failure):
            assert message.code in CODES, message
            assert message.message
        found.append(message)
    return found


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
@MANY
@given(said=said, opening=st.sampled_from(OPENINGS))
def test_anything_may_be_said(said: list[bytes | str], opening: tuple[ClientMessage, ...]) -> None:
    async def scene(app: Starlette) -> dict[int, int]:
        bystander, world = await walk(app)
        visitor = Visitor(app, world)
        looking = asyncio.create_task(look(bystander))
        try:
            for thing in said:
                await visitor.say(thing, opening=opening)
            await visitor.hang_up()
            return await looking
        finally:
            looking.cancel()
            await asyncio.wait({looking})
            await bystander.leave()

    assert run(scene) == undisturbed()


async def _talk(app: Starlette, *things: bytes | str) -> list[Any]:
    visitor = Visitor(app, "nobody")
    for thing in things:
        await visitor.say(thing, opening=(Hello(),))
    await visitor.hang_up()
    return visitor.answers


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__struct_config__.tag)
def test_the_messages_that_are_drawn_are_understood(struct: type[msgspec.Struct]) -> None:
    """Or else the fuzzing would only ever meet the decoder."""
    found: list[bytes] = []

    @settings(MANY, max_examples=100)
    @given(message_of(struct, KNOWN))
    def draw(message: dict[str, Any]) -> None:
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=ClientMessage)
            found.append(b"")
        except (msgspec.MsgspecError, OverflowError):
            pass

    draw()
    assert found


def test_the_visitor_is_answered() -> None:
    """The harness itself: what is sent arrives, what is answered is seen."""
    ping = msgspec.msgpack.encode({"type": "ping", "at_ms": 5.0})
    enter = msgspec.msgpack.encode(wish())

    async def scene(app: Starlette) -> list[Any]:
        return await _talk(app, ping, b"\xc1", "text", enter)

    answers = run(scene)
    assert [type(m) for m in answers[:4]] == [Ready, Pong, Failure, Failure]
    assert Seat in {type(m) for m in answers}


def test_a_crash_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself, once more: an error of ours ends the test."""

    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Talk, "_report", crash)
    playhead = msgspec.msgpack.encode(Playhead(frame=0, lead_ms=0.0, at_ms=0.0))

    async def scene(app: Starlette) -> list[Any]:
        return await _talk(app, playhead)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(scene)
