"""The recorded trace of one session of the mainline endpoint, replayed through a real socket.

Facts on the realtime wire, appendix B. Steps of the engine are let through one by one, so that
every "next prepared" chunk is known.
"""

from __future__ import annotations

import io
import threading

import pytest
from PIL import Image

from tests.fakes import LIMIT_S, FakeHandle, fake_info
from tests.server.live_server import Client, LiveServer
from tests.server.old_client import Message
from tests.server.sockets import event, init, keys

INIT = init(
    prompt="a misted kingdom",
    size="832x480",
    fps=25,
    num_frames=9,
    seed=42,
    num_inference_steps=4,
    guidance_scale=1.0,
    realtime_output_format="webp",
    output_compression=95,
)


class Trace:
    """A server whose engine makes one chunk at a time, and the client of the trace."""

    def __init__(self, server: LiveServer, client: Client) -> None:
        assert isinstance(server.handle, FakeHandle)
        self.handle = server.handle
        self.client = client

    def begun(self) -> None:
        """Wait until the engine was asked for one more chunk: its controls are sampled."""
        assert self.handle.entered.acquire(timeout=LIMIT_S)

    def finish(self) -> list[Message]:
        """Let the chunk in the engine finish, wait until the next one is sampled, and read it."""
        self.handle.allow()
        self.begun()
        return self.client.chunk()


def big_world() -> FakeHandle:
    return FakeHandle(fake_info(window=18, sizes=((64, 48), (832, 480))))


def wait_until_warm(handle: FakeHandle, port: int) -> None:
    """Sockets wait for the warm-up by themselves; here its steps must be over before `hold`."""
    with Client(port) as client:
        client.send(init(size="1x1", max_chunks=1))
        client.chunk()
        assert client.closed() == (1000, "generation complete")
    while handle.entered.acquire(blocking=False):
        pass
    handle.requests.clear()


def test_the_minimal_trace() -> None:
    handle = big_world()
    with LiveServer(handle, seats=1, seat_wait_s=0.3) as server:
        wait_until_warm(handle, server.port)
        handle.hold()
        with server.client() as client:
            _replay(Trace(server, client), server)
        handle.allow(10)
    handle.nothing_is_left()


def _replay(trace: Trace, server: LiveServer) -> None:
    client, handle = trace.client, trace.handle
    client.send(INIT)  # 1
    trace.begun()
    _check_chunk(trace.finish(), index=0, event_id=None, frames=[6, 3])  # 2, 3

    client.send(keys("w", event_id=1))  # 4
    client.everything_sent_was_read()
    _check_chunk(trace.finish(), index=1, event_id=None, frames=[6, 6])  # was prepared before
    _check_chunk(trace.finish(), index=2, event_id=1, frames=[6, 6])  # 5

    client.send(keys("a", event_id=2))  # 6: pressed and released before the next sampling
    client.send(keys(event_id=3))
    client.everything_sent_was_read()
    trace.finish()
    _check_chunk(trace.finish(), index=4, event_id=3, frames=[6, 6])
    assert [r.actions for r in handle.requests[:5]] == [
        ((), (), ()),
        ((), (), ()),
        (("w",), ("w",), ("w",)),
        (("w",), ("w",), ("w",)),
        (("a",), (), ()),
    ]

    client.send(event("prompt", "a storm over the citadel", 4))  # 7
    client.everything_sent_was_read()
    trace.finish()
    _check_chunk(trace.finish(), index=6, event_id=4, frames=[6, 6])
    assert [r.prompt for r in handle.requests[5:7]] == [None, "a storm over the citadel"]

    client.send(event("teleport", [1, 2, 3], 5))  # 8
    error = client.error()
    assert (error["content"], error["code"]) == ("invalid event", "invalid_event")
    _check_chunk(trace.finish(), index=7, event_id=4, frames=[6, 6])

    with server.client() as second:  # 9: the only seat is taken
        second.send(INIT)
        assert second.error()["content"] == "another realtime session is already active"
        assert second.closed() == (1008, "another realtime session is already active")


def _check_chunk(
    messages: list[Message], *, index: int, event_id: int | None, frames: list[int]
) -> None:
    *batches, stats = messages
    assert [b.fields["num_frames"] for b in batches] == frames
    for number, batch in enumerate(batches):
        fields = batch.fields
        assert batch.split, "webp batches of this size are above 64 KiB"
        assert fields["type"] == "frame_batch_header"
        assert (fields["chunk_index"], fields.get("event_id")) == (index, event_id)
        assert ("event_id" in fields) == (event_id is not None)
        assert (fields["frame_batch_index"], fields["num_frame_batches"]) == (number, len(frames))
        assert fields["is_final_frame_batch"] == (number == len(frames) - 1)
        assert (fields["content_type"], fields["format"]) == ("image/webp", "webp")
        assert (fields["width"], fields["height"]) == (832, 480)
    first = (batches[0].payload or b"")[: batches[0].fields["payload_lengths"][0]]
    with Image.open(io.BytesIO(first)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (832, 480))
    assert stats.fields["chunk_index"] == index
    assert "event_id" in stats.fields
    assert stats.fields["event_id"] == event_id
    assert (stats.fields["num_frames"], stats.fields["num_batches"]) == (sum(frames), len(frames))


@pytest.mark.parametrize("output", ["raw", None])
def test_the_raw_variant_sends_one_batch_per_chunk(output: str | None) -> None:
    handle = big_world()
    with LiveServer(handle) as server, server.client() as client:
        client.send({**INIT, "realtime_output_format": output, "max_chunks": 2})
        for index, frames in ((0, 9), (1, 12)):
            batch, stats = client.chunk()
            assert batch.split
            assert batch.fields["num_frames"] == frames
            assert len(batch.payload or b"") == frames * 832 * 480 * 3
            assert batch.fields["encoding"] == "raw"
            assert stats.fields["chunk_index"] == index
            assert stats.fields["raw_bytes"] == stats.fields["ws_payload_bytes"]
        assert client.closed() == (1000, "generation complete")
    handle.nothing_is_left()


def test_two_sessions_side_by_side_are_each_complete() -> None:
    handle = FakeHandle()

    def walk(server: LiveServer, seed: int, out: dict[int, list[str]]) -> None:
        with server.client() as client:
            client.send(init(seed=seed, max_chunks=8))
            out[seed] = [client.digest() for _ in range(8)]
            assert client.closed()[0] == 1000

    with LiveServer(handle) as server:
        alone: dict[int, list[str]] = {}
        together: dict[int, list[str]] = {}
        for seed in (1, 2):
            walk(server, seed, alone)
        threads = [threading.Thread(target=walk, args=(server, s, together)) for s in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
    assert alone == together
    assert alone[1] != alone[2]


def test_stopping_the_server_closes_sockets_and_sessions() -> None:
    handle = FakeHandle()
    with LiveServer(handle) as server, server.client() as client, server.client() as waiting:
        client.send(init())
        client.chunk()
        codes: list[int] = []
        reader = threading.Thread(target=lambda: codes.append(client.last_code()))
        reader.start()
        server.stop()
        reader.join()
        assert codes == [1012]
        assert waiting.last_code() == 1012
    handle.nothing_is_left()


def test_a_reader_that_stopped_reading_keeps_no_socket_of_a_stopped_server() -> None:
    handle = FakeHandle()
    with LiveServer(handle, shutdown_s=1) as server, server.client() as client:
        client.send(init(size="832x480", realtime_output_format="raw"))
        client.chunk()  # and then nothing more: what follows fills every buffer on the way
        server.stop()
        assert client.last_code() in (1006, 1012)
    handle.nothing_is_left()
