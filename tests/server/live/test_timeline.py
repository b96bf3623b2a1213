"""Thumbnails: one a second, not too many, small, and only of the walk as it is."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeHandle
from worldline.core.live.server import Moment
from worldline.runtime.protocol import OpenReply, OpenRequest
from worldline.server.live import moments
from worldline.server.live.moments import MOST, WIDTH, Moments, thumbnail

pytestmark = pytest.mark.anyio


def reply(chunk: int) -> OpenReply:
    """A session whose chunks are a quarter of a second a latent frame."""
    request = OpenRequest(
        session_id="one",
        image=b"\0" * 12,
        image_width=2,
        image_height=2,
        prompt="a lake",
        chunk=chunk,
    )
    return FakeHandle().open(request)


PICTURE = np.zeros((48, 64, 3), np.uint8)


async def walked(chunks: int, *, chunk: int, most: int | None = None) -> tuple[Moments, list[int]]:
    told: list[Moment] = []
    with ThreadPoolExecutor(1) as pool:
        timeline = Moments(reply(chunk), pool, tell=told.append)
        for place in range(chunks):
            timeline.offer(place, 10 * place, PICTURE)
            while timeline._waiting:
                await asyncio.sleep(0)
        if timeline._task is not None:
            await timeline._task
        await timeline.close()
    return timeline, [moment.chunk for moment in told]


@pytest.mark.parametrize(
    ("chunk", "places"),
    [(1, [0, 5, 9]), (3, [0, 2, 3, 4, 5]), (5, [0, 1, 2, 3])],
)
async def test_about_one_a_second(chunk: int, places: list[int]) -> None:
    timeline, told = await walked(max(places) + 1, chunk=chunk)
    assert told == places == [moment.chunk for moment in timeline.all]


async def test_when_there_are_many_the_older_half_is_thinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moments, "MOST", 8)
    timeline, told = await walked(11, chunk=5)
    assert len(told) == 11
    assert len(timeline.all) <= 8 < MOST
    places = [moment.chunk for moment in timeline.all]
    assert places == sorted(places)
    assert (places[0], places[-3:]) == (0, [8, 9, 10])


def test_a_thumbnail_is_small_and_of_the_same_shape() -> None:
    data = thumbnail(np.full((480, 832, 3), 90, np.uint8))
    assert len(data) < 8000
    assert Image.open(io.BytesIO(data)).size == (WIDTH, round(480 * WIDTH / 832))
    assert Image.open(io.BytesIO(thumbnail(PICTURE))).size == (64, 48)
