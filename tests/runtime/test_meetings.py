"""Where features meet: a chunk that fails, first chunks that are kept, levers without a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.runtime import pipeline, replay
from worldline.runtime.engine import load
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

    def fails(*given: object, **named: object) -> None:
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


def test_a_history_that_failed_half_way_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt that failed is not asked for again: its half of the ring must not stay."""

    def walk(*, fail: bool) -> list[torch.Tensor]:
        world = tiny.world(options=EngineOptions(recache=True))
        with world.start(tiny.picture(), tiny.PROMPT, window=11) as session:
            session.step()
            session.step()
            session.step(prompt="a frozen lake at night")
            if fail:
                with monkeypatch.context() as patched, pytest.raises(RuntimeError):
                    patched.setattr(replay, "commit_past", _third_fails(replay.commit_past))
                    session.step(prompt="a burning forest")
            session.step()
            state = session.state
            return state.kv.take(state.kv.present_frames(state.next_frame))

    for mended, plain in zip(walk(fail=True), walk(fail=False), strict=True):
        assert torch.equal(mended, plain)


def _third_fails(commit: Callable[..., None]) -> Callable[..., None]:
    count = iter(range(100))

    def maybe(*given: object) -> None:
        if next(count) == 2:
            raise RuntimeError("no memory")
        commit(*given)

    return maybe


@pytest.mark.parametrize(
    "wrong",
    [
        {"kv": "6bit"},
        {"offload": "yes"},
        {"text_encoder": "gpu"},
        {"first_chunks_mb": -5},
        {"resident_blocks": 0},
    ],
)
def test_options_that_do_not_exist_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unusable"):
        load(options=EngineOptions(**wrong))
