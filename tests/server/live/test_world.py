"""One world on a fake engine: chunks, receipts, and every state it can be in."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import FakeClock, FakeHandle
from tests.server.live.audience import FakeAudience, a_world, enter, serving, walking
from worldline.core.live.client import Keys
from worldline.core.live.server import Applied, Chunk, Received
from worldline.core.motion import Motion

pytestmark = pytest.mark.anyio

AHEAD = Motion(z=1.0)


def walked(handle: FakeHandle) -> list[tuple[Motion, ...]]:
    """The motions of every chunk the engine was asked for."""
    return [request.motions or () for request in handle.requests]


async def test_a_world_shows_its_chunks_latent_frame_by_latent_frame() -> None:
    handle, clock = FakeHandle(), FakeClock()
    audience = FakeAudience(clock)
    async with serving(handle, clock) as services:
        world = a_world(services, audience, enter(max_chunks=2))
        opened = await world.open()
        await asyncio.gather(world.run(), clock.advance(10))
        await world.close("complete")
    assert (opened.chunk, opened.first_frame, opened.state) == (3, 0, "live")
    assert [(s.chunk, s.latent_frame, s.number, len(s.pixels)) for s in audience.seen] == [
        (0, 0, 0, 1),
        (0, 1, 1, 4),
        (0, 2, 5, 4),
        (1, 0, 9, 4),
        (1, 1, 13, 4),
        (1, 2, 17, 4),
    ]
    assert [(s.first, s.last) for s in audience.seen[:3]] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert [(c.index, c.frames) for c in audience.all(Chunk)] == [(0, 9), (1, 12)]
    assert audience.states == ["opening", "live", "closed"]
