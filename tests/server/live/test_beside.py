"""A spectator's costly format costs the holder nothing: neither pictures nor their quality."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from tests.fakes import LIMIT_S
from tests.server.live.stage import PICTURES, Stage, needs_h264, staged
from worldline.media import webp
from worldline.server.live.beside import MOST
from worldline.server.live.following import Following, Pace, Unit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    async with staged() as made:
        yield made


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """WebP takes until this is set."""
    done, real = threading.Event(), webp.encode_webp

    def wait(*facts: object) -> bytes:
        assert done.wait(LIMIT_S)
        return real(*facts)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(webp, "encode_webp", wait)
    return done


async def test_a_slow_format_of_a_spectator_holds_nothing_up(
    stage: Stage, slow: threading.Event
) -> None:
    holder, other = stage.watch("a", "raw", holder=True), stage.watch("b", "webp")
    latents = MOST // PICTURES + 2
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(latents):
                await stage.show()
            await holder.viewer.settle()
        assert [f.number for f in holder.frames] == list(range(stage.number))
        assert stage.released == latents, "the engine has its memory back"
        assert other.frames == []
    finally:
        slow.set()
    await stage.quiet()
    newest = range(stage.number - MOST, stage.number)
    assert [f.number for f in other.frames][-MOST:] == list(newest), "of those that wait, these"
    assert len(other.frames) <= MOST + 1


async def test_a_format_that_the_holder_takes_up_never_runs_backwards(
    stage: Stage, slow: threading.Event
) -> None:
    holder, other = stage.watch("a", "raw", holder=True), stage.watch("b", "webp")
    await stage.show()
    stage.broadcast.attach(holder.viewer, "webp")
    showing = asyncio.create_task(stage.show())
    slow.set()
    await showing
    await stage.quiet()
    numbers = [f.number for f in other.frames]
    assert numbers == sorted(numbers) and numbers[-1] == stage.number - 1
    webps = [f.number for f in holder.frames if f.format == "webp"]
    assert webps == sorted(webps) and webps[-1] == stage.number - 1


@needs_h264
async def test_only_the_holders_format_counts_as_cost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.watch("a", "raw", holder=True)
    other = stage.watch("b", "h264")

    async def image(*_: object) -> Unit | None:
        return None

    async def make(*_: object) -> Unit | None:
        await stage.clock.sleep(1.0)
        return None

    monkeypatch.setattr(stage.broadcast, "_image", image)
    monkeypatch.setattr(stage.broadcast.stream, "make", make)

    async def shown() -> float:
        showing = asyncio.create_task(stage.show())
        for _ in range(PICTURES):
            await stage.clock.until_sleeping(1.0)
            await stage.clock.advance(1.0)
        return (await showing).encode_s

    assert await shown() == 0.0
    stage.broadcast.viewers[0].holder, other.viewer.holder = False, True
    assert await shown() == PICTURES


def test_who_has_seen_a_still_is_shown_nothing_older() -> None:
    following = Following(chained=False, pace=Pace())
    following.saw(5)
    following.leave(0.0)
    following.take(0.0)
    following.wrote(9, 0.0)  # the newest that there was, ahead of what is offered
    for number in (8, 9, 10):
        following.offer(Unit(number, "webp", True, b"", b""), 1.0)
    assert len(following) == 1 and not following.behind
    taken = following.take(1.0)
    assert isinstance(taken, Unit) and taken.number == 10
