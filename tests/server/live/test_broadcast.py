"""One encode for all, and a reader that stops costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.server.live.stage import (
    CHUNK_S,
    FPS,
    HEIGHT,
    HERE,
    LATENT_S,
    PICTURES,
    WIDTH,
    Eyes,
    Stage,
    needs_h264,
    opened,
    staged,
)
from worldline.core.live.server import Chunk, Frame, Notice, Pong
from worldline.core.live.shared import Format
from worldline.core.motion import Pose
from worldline.media import webp
from worldline.server.live import stream as stream_module
from worldline.server.live.broadcast import formats
from worldline.server.live.following import MOST_BYTES, MOST_PICTURES, Pace, Unit
from worldline.server.live.viewer import MOST_MESSAGES, ReaderStuck
from worldline.server.waiting import stop

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(staged())


def numbers(eyes: Eyes) -> list[int]:
    return [frame.number for frame in eyes.frames]


@pytest.mark.parametrize("format", formats())
async def test_every_picture_arrives_in_order_with_its_facts(stage: Stage, format: Format) -> None:
    eyes = stage.watch("a", format)
    for _ in range(4):
        await stage.latent()
    assert numbers(eyes) == list(range(16))
    assert stage.released == 4
    frame = eyes.frames[13]
    assert (frame.chunk, frame.latent_frame, frame.input, frame.yaw) == (1, 0, 7, 1.5)
    assert (frame.width, frame.height, frame.format) == (WIDTH, HEIGHT, format)
    assert [f.number for f in eyes.frames if f.first] == [0, 12]
    assert [f.key for f in eyes.frames] == [format != "h264" or n == 0 for n in range(16)]
    assert isinstance(eyes.frames[0].codec, str) is (format == "h264")


async def test_a_picture_says_how_far_it_has_turned_itself(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg")
    await stage.latent()
    stage.pose = Pose(HERE.c2w, HERE.yaw + 6.0, HERE.pitch - 2.0)
    await stage.latent()
    turned = [(frame.yaw - HERE.yaw, frame.pitch - HERE.pitch) for frame in eyes.frames]
    still = [(0.0, 0.0)] * 4
    assert turned == [*still, (1.5, -0.5), (3.0, -1.0), (4.5, -1.5), (6.0, -2.0)]
    assert all(frame.pose == HERE.c2w for frame in eyes.frames)


async def test_raw_is_the_pixels(stage: Stage) -> None:
    eyes = stage.watch("a", "raw")
    expected = stage.pixels()
    await stage.latent()
    seen = [np.frombuffer(f.payload, np.uint8).reshape(HEIGHT, WIDTH, 3) for f in eyes.frames]
    np.testing.assert_array_equal(np.stack(seen), expected)


@needs_h264
async def test_there_is_one_encode_for_all_of_a_format(stage: Stage) -> None:
    first, second = stage.watch("a"), stage.watch("b")
    for _ in range(3):
        await stage.latent()
    assert first.transport.sent == second.transport.sent != []


@needs_h264
async def test_a_late_comer_sees_at_once_and_streams_within_a_second(stage: Stage) -> None:
    holder = stage.watch("a", holder=True)
    for _ in range(8):
        await stage.latent()
    late = stage.watch("b")
    await stage.quiet()
    assert [(f.number, f.format) for f in late.frames] == [(31, "jpeg")], "the newest picture"
    await stage.latent()
    assert late.frames[1].key and late.frames[1].format == "h264"
    later = stage.watch("c")
    for _ in range(4):
        await stage.latent()
    keys = [f.number for f in holder.frames if f.key]
    forced = [number / FPS for number in keys[1:]]
    assert forced[1] - forced[0] >= 1.0, "at most one forced key frame a second"
    assert {f.format for f in later.frames if f.number < keys[2]} == {"jpeg"}
    assert numbers(holder) == list(range(stage.number)), "nobody else missed anything"


@needs_h264
async def test_a_reader_that_stops_for_ten_minutes_costs_nobody_anything(stage: Stage) -> None:
    stage.slow_down(8)
    holder, sleeper = stage.watch("a", holder=True), stage.watch("b")
    alone = await undisturbed(latents=12)
    for _ in range(12):
        await stage.latent()
    assert holder.transport.sent == alone, "so far both have the same"
    sleeper.read(False)
    kbps = stage.broadcast.stream.kbps
    for _ in range(round(600 / stage.latent_s)):
        holder.transport.sent.clear()
        await stage.latent()
        assert numbers(holder) == list(range(stage.number - PICTURES, stage.number))
        following = sleeper.viewer.following
        assert following is not None
        assert len(following) <= MOST_PICTURES and following.queued_bytes <= MOST_BYTES
        assert sleeper.viewer.waiting <= MOST_MESSAGES and sleeper.outbox.waiting <= 1
        holder.transport.sent, dropped = holder.transport.sent[-PICTURES:], holder.frames
        assert len(dropped) <= 2 * PICTURES
        assert holder.frames[-1].number == stage.number - 1, "the holder is up to date"
    assert stage.broadcast.stream.key_frames == 1, "nobody paid for a key frame"
    assert stage.broadcast.stream.kbps == kbps
    before, woke = len(sleeper.frames), stage.clock.now()
    sleeper.read(True)
    await stage.quiet()
    after = sleeper.frames[before:]
    assert after[0].number <= 12 * PICTURES, "the one write that was under way"
    assert after[1].number == stage.number - 1 and after[1].format == "jpeg"
    assert 1000 * woke - after[1].encoded_ms <= 1000 * 8 * CHUNK_S
    for _ in range(round(16 / stage.latent_s)):
        await stage.latent()
    assert sleeper.frames[-1].format == "h264", "back in the stream"
    assert sleeper.frames[-1].number == stage.number - 1
    later = [f for f in sleeper.frames if f.number > after[1].number]
    stills = [f for f in later if f.format == "jpeg"]
    streamed = [f for f in later if f.format == "h264"]
    assert len(stills) + len(streamed) == len(later) and streamed[0].key
    assert [f.number for f in streamed] == list(range(streamed[0].number, stage.number))


async def undisturbed(latents: int) -> list[bytes]:
    """What a holder alone is sent."""
    async with staged() as stage:
        stage.slow_down(8)
        eyes = stage.watch("a", holder=True)
        for _ in range(latents):
            await stage.latent()
        return list(eyes.transport.sent)


@needs_h264
async def test_the_bitrate_follows_the_holder_only(stage: Stage) -> None:
    holder, other = stage.watch("a", holder=True), stage.watch("b")
    await stage.latent()
    full = stage.broadcast.stream.kbps
    other.read(False)
    for _ in range(8):
        await stage.latent()
    assert stage.broadcast.stream.kbps == full
    holder.read(False)
    for _ in range(8):
        await stage.latent()
    assert stage.broadcast.stream.kbps < full / 2


@needs_h264
async def test_a_lost_decoder_gets_a_key_frame(stage: Stage) -> None:
    eyes = stage.watch("a", holder=True)
    for _ in range(5):
        await stage.latent()
    stage.broadcast.key_frame(eyes.viewer)
    await stage.latent()
    assert [f.number for f in eyes.frames if f.key and f.format == "h264"] == [0, 20]


@needs_h264
async def test_an_encoder_that_fails_leaves_a_world_of_images(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes = stage.watch("a", holder=True)
    await stage.latent()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(stream_module.H264Encoder, "encode", broken)
    for _ in range(3):
        await stage.latent()
    assert eyes.frames[-1].format == "jpeg" and eyes.frames[-1].number == stage.number - 1
    assert stage.released == 4 and "h264" not in stage.broadcast.formats


async def test_odd_sizes_are_images() -> None:
    async with staged() as stage:
        eyes = stage.watch("a", "h264")
        stage.broadcast.opened(opened(width=65))
        await stage.latent()
        assert {frame.format for frame in eyes.frames} == {"jpeg"}


async def test_control_messages_go_before_pictures_and_none_is_lost(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg")
    eyes.read(False)
    await stage.latent()
    notices = [Notice(code="x", message=str(index)) for index in range(200)]
    for index, notice in enumerate(notices):
        stage.broadcast.tell(notice)
        eyes.viewer.send(Pong(at_ms=index, server_ms=0))
    eyes.read(True)
    await stage.quiet()
    messages = eyes.messages
    assert [m for m in messages if isinstance(m, Notice)] == notices
    pongs = [m for m in messages if isinstance(m, Pong)]
    assert pongs[-1].at_ms == 199 and len(pongs) < 60, "of pongs the newest is enough"
    kinds = [type(message) for message in messages]
    assert Frame not in kinds[1 : kinds.index(Pong)], "one picture was under way, no other"


async def test_a_reader_of_nothing_at_all_is_given_up(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg")
    eyes.read(False)
    await stage.latent()
    for index in range(MOST_MESSAGES + 2):
        eyes.viewer.send(Notice(code="x", message=str(index)))
    eyes.read(True)
    with pytest.raises(ReaderStuck):
        await eyes.running


async def test_statistics_never_pile_up(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg", holder=True)
    eyes.read(False)
    await stage.latent()
    for index in range(5000):
        stage.broadcast.tell_holder(
            Chunk(
                index=index, frames=12, input=0, stages={}, bytes=0, lead_ms=0,
                real_time_factor=1, misses=0,
            )
        )  # fmt: skip
    assert eyes.viewer.waiting <= 40


async def test_pixels_are_released_when_showing_is_cancelled(stage: Stage) -> None:
    stage.watch("a", "jpeg")
    showing = [asyncio.create_task(stage.latent()) for _ in range(3)]
    await asyncio.sleep(0)
    await stop(*showing)
    assert stage.released == 3


async def test_who_left_is_shown_nothing_more(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg")
    await stage.latent()
    stage.broadcast.detach(eyes.viewer)
    await stage.latent()
    assert numbers(eyes) == [0, 1, 2, 3]
    assert stage.broadcast.viewers == ()


async def test_quality_is_a_share_of_the_usual(stage: Stage) -> None:
    eyes = stage.watch("a", "jpeg")
    await stage.latent()
    full = len(eyes.frames[-1].payload)
    stage.broadcast.quality(0.4)
    await stage.latent()
    assert len(eyes.frames[-1].payload) < full


@needs_h264
async def test_what_is_encoded_is_counted(stage: Stage) -> None:
    stage.watch("a", holder=True)
    stage.watch("b")
    slow = stage.watch("c", "jpeg")
    await stage.latent()
    slow.read(False)
    for _ in range(8):
        await stage.latent()
    count = stage.metrics.collected.get_sample_value
    assert count("worldline_live_encoded_total", {"format": "h264"}) == 36
    assert count("worldline_live_encoded_total", {"format": "jpeg"}) == 36
    assert count("worldline_live_key_frames_total") == 1
    assert count("worldline_live_behind_total") == 1


class Noise(Stage):
    """A world of coarse noise, which takes all the bits it is given."""

    def pixels(self) -> NDArray[np.uint8]:
        blocks = np.random.default_rng(self.number).integers(
            0, 256, (PICTURES, HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8
        )
        return blocks.repeat(4, axis=1).repeat(4, axis=2)


@needs_h264
async def test_the_holders_bitrate_reaches_the_encoder() -> None:
    async with staged(Noise) as stage:
        eyes = stage.watch("a", holder=True)

        async def kbps(seconds: int) -> float:
            eyes.transport.sent.clear()
            for _ in range(round(seconds / LATENT_S)):
                await stage.latent()
            return sum(8 * len(frame.payload) for frame in eyes.frames) / seconds / 1000

        before = await kbps(4)
        stage.broadcast.settings(bitrate_kbps=100)
        await kbps(4)
        assert await kbps(4) < 150 < before
        stage.broadcast.settings(bitrate_kbps=10**9)
        assert stage.broadcast.stream.asked_kbps == stage.broadcast.config.max_bitrate_kbps


async def test_a_still_that_was_overtaken_is_not_sent(stage: Stage) -> None:
    """It would show a later picture before the key frame it came back at."""
    eyes = Eyes(stage, "a")
    stage.eyes.append(eyes)
    begun, made = asyncio.Event(), asyncio.Event()

    async def still(_: Format) -> Unit:
        begun.set()
        await made.wait()
        return Unit(9, "jpeg", True, b"still", b"")

    eyes.viewer.begin("h264", Pace(chunk_s=CHUNK_S), still)
    eyes.viewer.saw(6)
    await begun.wait()
    eyes.viewer.offer(Unit(7, "h264", True, b"key frame", b""))
    eyes.viewer.offer(Unit(8, "h264", False, b"the next", b""))
    made.set()
    await stage.quiet()
    assert eyes.transport.sent == [b"key frame", b"the next"]


async def test_a_format_that_fails_costs_nobody_else_a_picture(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = stage.watch("a", "raw", holder=True), stage.watch("b", "webp")

    def broken(*_: object) -> bytes:
        raise RuntimeError("out of order")

    monkeypatch.setattr(webp, "encode_webp", broken)
    for _ in range(3):
        await stage.latent()
    assert numbers(good) == list(range(12)) and bad.frames == []
    assert stage.released == 3
