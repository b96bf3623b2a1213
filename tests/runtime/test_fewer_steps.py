"""A chunk made with fewer denoise passes is that of a shorter schedule, and only that chunk is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import tiny
from worldline.core.errors import ConfigError
from worldline.runtime.session import Session
from worldline.sampling.schedules import thinned

WALK = [("w",), (), ("l",)]
STEPS = 4


def start() -> Session:
    return tiny.world().start(tiny.picture(), tiny.PROMPT, 3, steps=STEPS)


def asked_of(session: Session, steps: int | None) -> tuple[NDArray[np.uint8], int]:
    """The frames of a chunk, and how often it asked whether it was given up."""
    asked: list[None] = []
    chunk = session.step(WALK, steps=steps, aborted=lambda: asked.append(None) is not None)
    return chunk.frames, len(asked)


def test_it_takes_so_many_passes_fewer() -> None:
    with start() as session:
        counts = [asked_of(session, steps)[1] for steps in (None, 4, 9, 3, 1)]
    assert [counts[0] - count for count in counts] == [0, 0, 0, 1, 3]


def test_it_is_the_chunk_of_the_shorter_schedule_and_the_next_one_is_whole_again() -> None:
    with start() as session:
        got = [session.step(WALK, steps=steps).frames for steps in (None, 2, None)]
    with start() as session:
        whole = session.state.schedule
        expected: list[NDArray[np.uint8]] = []
        for schedule in (whole, thinned(whole, 2), whole):
            session.state.schedule = schedule
            expected.append(session.step(WALK).frames)
    assert all((a == b).all() for a, b in zip(got, expected, strict=True))
    with start() as session:
        session.step(WALK)
        assert (session.step(WALK).frames != got[1]).any()


def test_a_first_chunk_of_fewer_passes_is_kept_for_nobody() -> None:
    world = tiny.world()
    with world.start(tiny.picture(), tiny.PROMPT, 3, steps=STEPS) as hasty:
        quick = hasty.step(WALK, steps=1).frames
        hasty.prepare()
    with world.start(tiny.picture(), tiny.PROMPT, 3, steps=STEPS) as calm:
        whole = calm.step(WALK).frames
        calm.prepare()
    with start() as alone:
        assert (whole == alone.step(WALK).frames).all()
    assert (whole != quick).any()
    with world.start(tiny.picture(), tiny.PROMPT, 3, steps=STEPS) as hasty:
        assert (hasty.step(WALK, steps=1).frames == quick).all()


def test_no_passes_at_all_are_refused_and_nothing_has_changed() -> None:
    with start() as session:
        with pytest.raises(ConfigError, match="count"):
            session.step(WALK, steps=0)
        first = session.step(WALK).frames
    with start() as session:
        assert (session.step(WALK).frames == first).all()
