"""Sessions through the app, without a network: frames, controls, order and overlap."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.fakes import FakeHandle, fake_info, settle
from tests.server.conftest import Rig, Start
from tests.server.sockets import event, init, keys
from worldline.runtime.protocol import StepRequest

pytestmark = pytest.mark.anyio


async def test_a_session_sends_its_chunks_and_closes(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=3))
    counts = []
    for index in range(3):
        *batches, stats = await socket.chunk()
        assert [m.fields["chunk_index"] for m in batches] == [index] * len(batches)
        assert stats.fields["chunk_index"] == index
        assert stats.fields["event_id"] is None
        assert "event_id" not in batches[0].fields
        counts.append(stats.fields["num_frames"])
    assert counts == [9, 12, 12]
    assert await socket.closed() == (1000, "generation complete")
    rig.handle.nothing_is_left()
    assert rig.services.seats.taken == 0


async def test_raw_frames_are_the_pixels_of_the_engine(rig: Rig) -> None:
    handle = FakeHandle(rig.handle.info)
    socket = await rig.connect()
    socket.send(init(max_chunks=2))
    first, _, second, _ = [*await socket.chunk(), *await socket.chunk()]
    await socket.closed()
    opening = rig.handle.opened[0]
    handle.open(opening)
    for message, index in ((first, 0), (second, 1)):
        step = StepRequest(session_id=opening.session_id, chunk_index=index, actions=((), (), ()))
        assert message.payload == handle.step(step).frames.tobytes()
        assert message.fields["format"] == "rgb24"
        assert message.fields["raw_size"] == message.fields["total_size"]


async def test_generation_of_the_next_chunk_overlaps_sending(rig: Rig) -> None:
    """Chunk 1 is being generated while chunk 0 is still not delivered, and chunk 2 is not."""
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init())
    await rig.entered()
    rig.handle.allow()
    await rig.entered()  # chunk 1 has begun
    chunk = await socket.chunk()
    assert chunk[0].fields["chunk_index"] == 0
    assert rig.handle.running == 1
    await settle()
    assert not rig.handle.entered.acquire(blocking=False)  # chunk 2 has not


async def test_event_ids_reach_the_first_chunk_that_shows_them(rig: Rig) -> None:
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init())
    await rig.entered()  # chunk 0 was sampled
    socket.send(keys("w", event_id=1))
    await settle()
    rig.handle.allow()
    await rig.entered()  # chunk 1 was sampled with w
    socket.send(keys(event_id=2))
    socket.send(event("prompt", "a storm", 3))
    await settle()
    rig.handle.allow(2)
    await rig.entered()
    await rig.entered()
    ids = []
    for _ in range(3):
        chunk = await socket.chunk()
        assert {m.fields.get("event_id") for m in chunk} == {chunk[-1].fields["event_id"]}
        ids.append(chunk[-1].fields["event_id"])
    assert ids == [None, 1, 3]
    steps = rig.handle.requests
    assert [s.actions for s in steps] == [((),) * 3, (("w",),) * 3, ((),) * 3]
    assert [s.prompt for s in steps] == [None, None, "a storm"]


async def test_a_script_of_the_init_runs_from_chunk_0(rig: Rig) -> None:
    socket = await rig.connect()
    script = [["w"], ["w", "l"], [], ["j"]]
    socket.send(init(max_chunks=2, condition_inputs={"camera_actions": script}))
    await socket.chunk()
    await socket.chunk()
    await socket.closed()
    first, second = rig.handle.requests
    assert first.actions == (("w",), ("w", "l"), ())
    assert second.actions == (("j",), (), ())


@pytest.mark.parametrize(("kind", "mime"), [("jpeg", "image/jpeg"), ("webp", "image/webp")])
async def test_encoded_chunks_are_batches_of_six_images(rig: Rig, kind: str, mime: str) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=1, realtime_output_format=kind, realtime_preview_max_width=32))
    *batches, stats = await socket.chunk()
    assert [b.fields["num_frames"] for b in batches] == [6, 3]
    assert [b.fields["frame_batch_index"] for b in batches] == [0, 1]
    assert [b.fields["num_frame_batches"] for b in batches] == [2, 2]
    assert [b.fields["is_final_frame_batch"] for b in batches] == [False, True]
    fields, payload = batches[0].fields, batches[0].payload or b""
    assert (fields["content_type"], fields["format"], fields["encoding"]) == (mime, kind, kind)
    assert (fields["width"], fields["height"]) == (32, 24)
    assert (fields["preview_width"], fields["preview_height"]) == (32, 24)
    assert (fields["source_width"], fields["source_height"]) == (64, 48)
    assert (fields["channels"], fields["bytes_per_frame"]) == (3, 64 * 48 * 3)
    assert "raw_size" not in fields
    at = 0
    for length in fields["payload_lengths"]:
        with Image.open(io.BytesIO(payload[at : at + length])) as image:
            assert (image.format or "").lower() == kind
            assert image.size == (32, 24)
        at += length
    assert stats.fields["ws_payload_bytes"] == sum(b.fields["total_size"] for b in batches)
    assert stats.fields["raw_bytes"] == 9 * 64 * 48 * 3


async def test_raw_batches_hold_at_most_sixteen_frames(start: Start) -> None:
    rig = await start(FakeHandle(fake_info(chunk=5, window=10)))
    socket = await rig.connect()
    socket.send(init(max_chunks=2))
    first, second = await socket.chunk(), await socket.chunk()
    assert [m.fields["num_frames"] for m in first[:-1]] == [16, 1]
    assert [m.fields["num_frames"] for m in second[:-1]] == [16, 4]
    assert first[0].fields["total_size"] == 16 * 64 * 48 * 3


async def test_pacing_delays_chunks_to_their_rate(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=3, realtime_output_pacing=True, fps=3))
    assert (await socket.chunk())[-1].fields["pace_wait_ms"] == 0
    await rig.clock.until_sleeping(3)
    assert socket.silent
    assert len(rig.handle.requests) == 2  # waiting is inline: chunk 2 is not asked for
    await rig.clock.advance(2.9)
    assert socket.silent
    await rig.clock.advance(0.1)
    assert (await socket.chunk())[-1].fields["pace_wait_ms"] == 3000
    await rig.clock.until_sleeping(4)
    await rig.clock.advance(4.0)
    assert (await socket.chunk())[-1].fields["pace_wait_ms"] == 4000
    assert (await socket.closed())[0] == 1000
