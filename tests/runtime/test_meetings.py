"""Where features meet: a chunk that fails, first chunks that are kept, levers without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.runtime import pipeline
from worldline.runtime.lane import InTurn


class CountingLane(InTurn):
    """Counts what is put into the decoder's lane."""

    decoded = 0

    @contextmanager
    def decoding(self, latents: torch.Tensor) -> Iterator[None]:
        self.decoded += 1
        yield


def test_a_recalled_chunk_is_put_where_its_frames_are_fetched() -> None:
    world, lane = tiny.world(), CountingLane()
    world.shared = world.shared._replace(lane=lane)
    for _ in range(2):
        with world.start(tiny.picture(), tiny.PROMPT) as session:
            session.step()
            session.prepare()
    assert world.shared.first_chunks.recalled == 1 and lane.decoded == 2


def test_after_a_chunk_that_failed_no_first_chunk_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have made the ring's history anew already, under another prompt."""

    def fails(*given: object) -> None:
        raise RuntimeError("no memory")

    world = tiny.world(options=EngineOptions(recache=True))
    with world.start(tiny.picture(), tiny.PROMPT) as session:
        session.step()
        with monkeypatch.context() as patched, pytest.raises(RuntimeError):
            patched.setattr(pipeline, "denoise", fails)
            session.step(prompt="a frozen lake at night")
        session.prepare()
        assert len(world.shared.first_chunks) == 0
        assert session.step().index == 1


@pytest.mark.parametrize("lever", ["still_window=0", "still_window=4", "sink_distance=20"])
def test_levers_that_do_not_fit_are_refused_without_a_window_too(lever: str) -> None:
    world = tiny.world(options=EngineOptions(lossy=(lever,)), sink=2, chunk=3)
    with pytest.raises(ConfigError, match=lever.partition("=")[0]):
        world.start(tiny.picture(), tiny.PROMPT, window=-1)
