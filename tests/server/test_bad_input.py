"""Every bad message gets its error, the server lives, and nobody else's frames change."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tests.fakes import LIMIT_S, FakeHandle
from tests.media.test_image import bomb
from tests.server.live_server import Client, LiveServer
from tests.server.sockets import event, init, keys, picture

CHUNKS = 12
MAX_BYTES = 1 << 20

BAD_INITS: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": (init(prompt=None), "invalid_generate_request"),
    "no picture": (init(first_frame=None), "invalid_image"),
    "a broken picture": (init(first_frame=picture()[:40]), "invalid_image"),
    "an empty picture": (init(first_frame=b""), "invalid_image"),
    "a 100-megapixel picture": (init(first_frame=bomb(10_000, 10_000)), "invalid_image"),
    "a path": (init(first_frame="/etc/hostname"), "invalid_image"),
    "a URL": (init(first_frame="http://127.0.0.1/x.png"), "invalid_image"),
    "a malformed size": (init(size="832by480"), "invalid_generate_request"),
    "a fractional seed": (init(seed=70000.5), "invalid_generate_request"),
    "a negative seed": (init(seed=-1), "invalid_generate_request"),
    "an unknown format": (init(realtime_output_format="h264"), "invalid_generate_request"),
    "a quality of 101": (init(output_compression=101), "invalid_generate_request"),
    "no chunks": (init(max_chunks=0), "invalid_generate_request"),
    "upscaling": (init(enable_upscaling=True), "invalid_config"),
    "an impossible window": (init(realtime_causal_kv_cache_num_frames=1), "invalid_config"),
    "an unknown action": (
        init(condition_inputs={"camera_actions": [["fly"]]}),
        "invalid_control",
    ),
    "a flat script": (
        init(condition_inputs={"camera_actions": ["w", "a"]}),
        "invalid_generate_request",
    ),
    "no type": ({"prompt": "x"}, "invalid_generate_request"),
    "an event": (keys("w"), "invalid_generate_request"),
    "a list": ([1, 2], "invalid_generate_request"),  # pyright: ignore[reportAssignmentType]
}

BAD_EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind": (event("fly", None), "invalid_event"),
    "an unknown action": (keys("fly"), "invalid_control"),
    "a fractional id": (keys("w", event_id=70000.5), "invalid_event"),  # pyright: ignore
    "a negative id": (keys("w", event_id=-1), "invalid_event"),
    "an id beyond 32 bits": (keys("w", event_id=2**32), "invalid_event"),
    "a script of numbers": (event("camera_actions", [[1, 2]]), "invalid_event"),
    "a flat script": (event("camera_actions", ["w"]), "invalid_event"),
    "an endless script": (event("camera_actions", [["w"]] * 513), "invalid_control"),
    "a mode nobody knows": (event("camera_actions", {"mode": "x"}), "invalid_event"),
    "no payload": ({"type": "event", "kind": "prompt"}, "invalid_event"),
    "an empty prompt": (event("prompt", ""), "invalid_event"),
    "a long prompt": (event("prompt", "x" * 5000), "invalid_prompt"),
    "a second init": (init(), "invalid_event"),
    "a composite without names": (event("composite_input", {"prompt": "x"}), "invalid_event"),
    "a composite that lacks one": (
        event("composite_input", {"input_types": ["prompt", "camera_actions"], "prompt": "x"}),
        "invalid_event",
    ),
    "a composite in a composite": (
        event("composite_input", {"input_types": ["composite_input"], "composite_input": {}}),
        "invalid_event",
    ),
}

BAD_BYTES: dict[str, bytes | str] = {
    "nothing": b"",
    "no MessagePack": b"\xc1\xff\x00",
    "half an init": msgspec.msgpack.encode(init())[:-20],
    "a depth bomb": b"\x91" * 200_000,
    "a length lie": b"\xdf\xff\xff\xff\xff",
    "bad UTF-8": b"\x82\xa4type\xa4init\xa6prompt\xa2\xff\xfe",
    "a text frame": "{'type': 'init'}",
    "something after the map": msgspec.msgpack.encode(init()) + b"\x00",
}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    handle = FakeHandle()
    with LiveServer(handle, max_message_bytes=MAX_BYTES, seats=3, init_attempts=100) as live:
        yield live
    handle.nothing_is_left()


def walk(server: LiveServer, hashes: list[str]) -> None:
    """The session that must not notice anything."""
    with server.client() as client:
        script = {"camera_actions": [[key] for key in "wdasjlki"]}
        client.send(init(seed=4711, max_chunks=CHUNKS, condition_inputs=script))
        hashes.extend(client.digest() for _ in range(CHUNKS))
        assert client.closed()[0] == 1000


@pytest.fixture(scope="module")
def undisturbed(server: LiveServer) -> list[str]:
    hashes: list[str] = []
    walk(server, hashes)
    return hashes


@pytest.fixture
def beside_a_visitor(server: LiveServer, undisturbed: list[str]) -> Iterator[LiveServer]:
    """Somebody walks while the test misbehaves; afterwards their frames must be as always."""
    hashes: list[str] = []
    visitor = threading.Thread(target=walk, args=(server, hashes))
    visitor.start()
    yield server
    visitor.join(LIMIT_S)
    assert hashes == undisturbed


def still_usable(client: Client) -> None:
    client.send(init(max_chunks=1))
    client.chunk()
    assert client.closed() == (1000, "generation complete")


def test_bad_inits(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        for name, (message, code) in BAD_INITS.items():
            client.send(message)
            error = client.error()
            assert (error["content"], error["code"]) == ("invalid generate request", code), name
            assert error["message"], name
        still_usable(client)


def test_bad_bytes_before_the_session(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        for name, data in BAD_BYTES.items():
            client.socket.send(data)
            error = client.error()
            assert error["content"] == "invalid generate request", name
            assert error["code"] == "invalid_generate_request", name
        still_usable(client)


def test_bad_events_and_bytes_in_a_session(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.send(init())
        next_chunk = 0
        bad: dict[str, tuple[Callable[[], None], str | None]] = {
            name: (lambda m=message: client.send(m), code)
            for name, (message, code) in BAD_EVENTS.items()
        }
        for name, data in BAD_BYTES.items():
            bad[name] = (lambda d=data: client.socket.send(d), "invalid_event")
        for name, (send, code) in bad.items():
            send()
            while (message := client.next()).type != "error":
                assert message.fields["chunk_index"] == next_chunk, name
                next_chunk += message.type == "chunk_stats"
            fields = message.fields
            assert (fields["content"], fields["code"]) == ("invalid event", code), name
        client.send(keys("w", event_id=9))
        while (message := client.next()).fields.get("event_id") != 9:
            assert message.type != "error", message


def test_a_message_above_the_limit_is_refused_unread(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.socket.send(bytes(MAX_BYTES + 1))
        assert client.closed()[0] == 1009


def test_a_message_above_the_limit_ends_a_running_session(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.send(init())
        client.chunk()
        client.socket.send(bytes(MAX_BYTES + 1))
        assert client.last_code() == 1009


def test_a_gigabyte_is_refused_by_its_header(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        header = b"\x82\xff" + struct.pack(">Q", 1 << 30) + b"mask"
        client.socket.socket.sendall(header)
        assert client.closed()[0] == 1009


def test_fragments_add_up(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.socket.send(bytes(200_000) for _ in range(8))
        assert client.last_code() == 1009


def test_a_connection_that_breaks_inside_a_message(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.socket.socket.sendall(b"\x82\xfe\x10\x00maskhalf an init")
        client.socket.socket.shutdown(socket.SHUT_RDWR)


def test_a_flood_of_events_is_folded_not_kept(beside_a_visitor: LiveServer) -> None:
    with beside_a_visitor.client() as client:
        client.send(init())
        many = msgspec.msgpack.encode(keys("a", event_id=3))
        for _ in range(600):
            client.socket.send(many)
        client.send(keys("d", event_id=4))
        while client.next().fields.get("event_id") != 4:
            pass
