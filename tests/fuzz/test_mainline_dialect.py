"""The mainline endpoint against anything: no crash, every refusal typed, nobody else disturbed."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from tests.fuzz.arena import AT_ONCE, MANY, PATIENCE_S, run
from tests.fuzz.grammar import EDGES, anything, bytes_of, message_of, simple, texts
from tests.server.old_client import OldClient
from tests.server.sockets import Socket, init, picture
from worldline.core.errors import WorldlineError, error_classes
from worldline.core.events import Event, Init

FRAMES = ("frame_batch", "frame_batch_header")
CHUNKS = 4  # that the bystander walks
IMAGES = (picture(), picture("red", (300, 2)), b"", picture()[:50], "data:image/png;base64,iVBOR")
CONTENTS = ("invalid generate request", "invalid event", "another realtime session is already")
CODES = set(error_classes()) - {WorldlineError.code}
CLOSES = {1000, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
actions = st.sampled_from(["w", "a", "s", "d", "i", "j", "k", "l", "fly", ""])
held = st.lists(actions, max_size=4)
transition = st.fixed_dictionaries({"actions": held}, optional={"client_ts_ms": simple})
script = st.lists(held, max_size=8) | st.just([["w"]] * 600)
state = st.fixed_dictionaries(
    {"mode": st.just("state"), "transitions": st.lists(transition, max_size=4)}
)
payloads = script | state | texts | anything
composite = st.fixed_dictionaries(
    {"input_types": st.lists(st.sampled_from(["prompt", "camera_actions", "fly"]), max_size=3)},
    optional={"prompt": texts, "camera_actions": script | state},
)
INIT = {
    "prompt": texts | st.just("a lake"),
    "first_frame": st.sampled_from(IMAGES) | anything,
    "size": st.sampled_from(["64x48", "128x96", "0x0", "-1x5", "x", "9" * 400 + "x1"]),
    "max_chunks": st.integers(1, 3) | st.sampled_from(EDGES),
    "condition_inputs": st.fixed_dictionaries({"camera_actions": script | anything}),
    "fps": st.integers(1, 1000) | simple,
    "realtime_causal_kv_cache_num_frames": st.integers(1, 40) | st.sampled_from(EDGES),
    "realtime_causal_sink_size": st.integers(0, 40) | st.sampled_from(EDGES),
}
EVENT = {
    "kind": st.sampled_from(["camera_actions", "prompt", "composite_input", "fly", ""]),
    "payload": payloads | composite,
    "event_id": st.none() | st.integers(0, 40) | st.sampled_from(EDGES),
}
events = st.fixed_dictionaries({"type": st.just("event"), **EVENT})
messages = bytes_of(message_of(Init, INIT) | events | message_of(Event, EVENT))
said = st.lists(messages | st.text(max_size=10), min_size=AT_ONCE, max_size=AT_ONCE)


async def walk(app: Starlette) -> list[str]:
    """The bystander: digests of its chunks."""
    socket = Socket(app)
    await socket.accepted()
    keys = {"camera_actions": [[key] for key in "wdasjlki"]}
    socket.send(init(seed=4711, max_chunks=CHUNKS, condition_inputs=keys))
    found: list[str] = []
    for _ in range(CHUNKS):
        payloads = [message.payload for message in await socket.chunk() if message.payload]
        found.append(hashlib.sha256(b"".join(payloads)).hexdigest())
    assert (await socket.closed())[0] == 1000
    return found


@functools.cache
def undisturbed() -> list[str]:
    """What the bystander sees alone."""
    return run(walk)


class Visitor:
    """Says anything; a closed connection is followed by another."""

    def __init__(self, app: Starlette, *, begins: bool) -> None:
        self._app = app
        self._begins = begins
        self._socket: Socket | None = None
        self.answers: list[dict[str, Any]] = []

    async def say(self, thing: bytes | str) -> None:
        """Send it; with `begins`, a new connection starts a session first."""
        if self._socket is None or self._socket.task.done():
            await self.hang_up()
            self._socket = Socket(self._app)
            await self._socket.accepted()
            if self._begins:
                self._socket.send(init())
        if isinstance(thing, str):
            self._socket.send_text(thing)
        else:
            self._socket.send_bytes(thing)
        for _ in range(5):
            await asyncio.sleep(0)

    async def see_a_frame(self) -> None:
        """Read until there is one."""
        assert self._socket is not None
        while not self.answers or self.answers[-1]["type"] not in FRAMES:
            self.answers.append((await self._socket.next()).fields)

    async def hang_up(self) -> None:
        """Leave, and check everything that was answered."""
        if self._socket is not None:
            await self._socket.leave()
            self.answers += check(self._socket)
            self._socket = None


def check(socket: Socket) -> list[dict[str, Any]]:
    """The old client can read every answer, and every refusal is typed."""
    found: list[dict[str, Any]] = []
    client = OldClient()
    assert not socket.task.cancelled() and socket.task.exception() is None
    for event in socket.unread():
        if event["type"] == "websocket.close":
            assert event["code"] in CLOSES, event
            continue
        message = client.feed(bytes(event["bytes"]))
        if message is None:
            continue
        found.append(message.fields)
        if message.type == "error":
            assert message.fields["code"] in CODES, message
            assert message.fields["content"].startswith(CONTENTS), message
    return found


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
@MANY
@given(said=said, begins=st.booleans())
def test_anything_may_be_said(said: list[bytes | str], begins: bool) -> None:
    async def scene(app: Starlette) -> list[str]:
        visitor = Visitor(app, begins=begins)
        walking = asyncio.create_task(walk(app))
        try:
            for thing in said:
                await visitor.say(thing)
            await visitor.hang_up()
            return await walking
        finally:
            walking.cancel()
            await asyncio.wait({walking})

    assert run(scene) == undisturbed()


def test_the_visitor_is_answered() -> None:
    """The harness itself: what is sent arrives, what is answered is seen."""

    async def scene(app: Starlette) -> list[dict[str, Any]]:
        visitor = Visitor(app, begins=True)
        await visitor.say(b"\xc1")
        await visitor.say("text")
        await visitor.see_a_frame()
        await visitor.hang_up()
        return visitor.answers

    kinds = [message["type"].removesuffix("_header") for message in run(scene)]
    assert kinds.count("error") == 2
    assert "frame_batch" in kinds
