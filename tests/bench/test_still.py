"""The world without a model: it moves as it is told, and streams what it returns."""

from __future__ import annotations

import numpy as np
import pytest

from worldline.bench.still import StillSession, StillWorld, still_info
from worldline.core.chunk import Decoded
from worldline.core.errors import AbortedError, ConfigError
from worldline.core.motion import MOTIONLESS, START_POSE, Motion

PICTURE = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)


def session() -> StillSession:
    """One over noise, at the picture's own size."""
    return StillWorld(still_info("still")).start(PICTURE, "a place")


def test_standing_still_shows_the_start_picture() -> None:
    world = session()
    chunks = [world.step(), world.step((MOTIONLESS,) * 3)]
    assert [len(chunk.frames) for chunk in chunks] == [9, 12]
    for chunk in chunks:
        assert all(np.array_equal(frame, PICTURE) for frame in chunk.frames)
        assert chunk.poses == (START_POSE,) * 3


def test_turning_shifts_the_picture_and_back_again() -> None:
    world = session()
    right = world.step((Motion(yaw=1.0),) * 3)
    assert not np.array_equal(right.frames[-1], PICTURE)
    assert right.poses[-1].yaw == pytest.approx(18.0)
    back = world.step((Motion(yaw=-1.0),) * 3)
    assert np.array_equal(back.frames[-1], PICTURE)


def test_what_is_streamed_is_what_is_returned() -> None:
    world, seen = session(), list[Decoded]()
    chunk = world.step(("w", "d", "l"), on_frames=seen.append)
    assert [part.latent_frame for part in seen] == [0, 1, 2]
    assert [part.first for part in seen] == [0, 1, 5]
    assert np.array_equal(np.concatenate([part.frames for part in seen]), chunk.frames)
    assert tuple(part.pose for part in seen) == chunk.poses


def test_a_given_up_chunk_changes_nothing() -> None:
    world = session()
    with pytest.raises(AbortedError):
        world.step((Motion(yaw=1.0),) * 3, aborted=lambda: True)
    assert len(world.step().frames) == 9


@pytest.mark.parametrize("name", ["still-", "still-9x9", "still-100x96", "stiller", "pocket"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        still_info(name)


def test_a_size_is_part_of_the_name() -> None:
    assert still_info("still-832x480").sizes == ((832, 480),)
