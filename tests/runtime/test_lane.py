"""Decoding behind or beside the passes: the same frames, and in which order things are queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.ops.image import to_uint8
from worldline.runtime.engine import World
from worldline.runtime.lane import InTurn, SideStream, choose_lane
from worldline.runtime.passes import EagerPasses

WALK = [[("w",), (), ("l",)], None, [("s", "k")] * 3]


def test_bytes_made_on_the_host_are_those_made_on_the_device() -> None:
    video = torch.randn(1, 3, 5, 16, 24)
    frames = InTurn().fetch(video)
    assert frames.dtype == np.uint8 and frames.shape == (5, 16, 24, 3)
    assert np.array_equal(frames, InTurn(on_host=True).fetch(video))
    assert np.array_equal(frames, to_uint8(video).numpy())


def test_a_cpu_does_one_thing_after_the_other() -> None:
    assert isinstance(choose_lane(torch.device("cpu"), ()), InTurn)


def test_pictures_are_queued_before_the_context_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """And after the latents they are made of; what is kept of the chunk comes after both."""
    queue: list[str] = []

    class Noted(InTurn):
        @contextmanager
        def decoding(self, latents: torch.Tensor) -> Iterator[None]:  # type: ignore[override]
            queue.append("decode")
            yield

        def join(self) -> None:
            queue.append("join")

    def noted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **given: Any) -> Any:
            queue.append(name)
            return plain(*args, **given)

        return run

    for name in ("denoise", "commit"):
        monkeypatch.setattr(EagerPasses, name, noted(name, getattr(EagerPasses, name)))
    world = tiny.world()
    world.shared = world.shared._replace(lane=Noted())
    with world.start(tiny.picture(), tiny.PROMPT, steps=2) as session:
        session.step()
        session.prepare()
    assert queue == ["denoise", "denoise", "decode", "commit", "join", "join"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_stream_of_its_own_changes_no_frame(graphs: str) -> None:
    components = tiny.world().components
    for module in (components.dit, components.vae):
        assert isinstance(module, torch.nn.Module)
        module.to("cuda")
    films = []
    for without in ({"decode_stream", "graphs", "first_chunk"}, set[str]()):
        options = EngineOptions(graphs=graphs)  # type: ignore[arg-type]
        world = World(components, options=options, without=without)
        assert isinstance(world.shared.lane, InTurn if without else SideStream)
        for _ in range(2):  # the second walk begins with a chunk that was kept
            with world.start(tiny.picture(), tiny.PROMPT, 3) as session:
                frames = []
                for i in range(6):
                    frames.append(session.step(WALK[i % 3]).frames.copy())
                    session.prepare()
            films.append(np.concatenate(frames))
    assert all(np.array_equal(films[0], film) for film in films[1:])
