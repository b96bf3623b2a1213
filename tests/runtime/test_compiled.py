"""Regional compile: the same numbers to rounding, compiled once for every shape and all blocks."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError

WALK = [[("w",), (), ("l",)], None, [("s", "k")] * 3]

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"
)


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_walk_equals_the_plain_one_and_compiles_once() -> None:
    from torch._dynamo.utils import counters

    from worldline.runtime import pipeline

    latents, compiled = [], 0
    for options in (EngineOptions(), EngineOptions(compile="regional")):
        world = tiny.world(options=options)
        with world.start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
            found = []
            for i in range(5):
                with torch.no_grad():
                    clock = session.engine.clock()
                    made = pipeline.next_chunk(session.engine, session.state, WALK[i % 3], clock)
                found.append(made.latents)
                if i == 0:
                    compiled = counters["stats"]["unique_graphs"]
            latents.append(torch.cat(found, dim=2))
        assert counters["stats"]["unique_graphs"] == compiled
    assert compiled == 5  # functions, not blocks
    assert not counters["graph_break"]
    assert (latents[0] - latents[1]).abs().max() <= 1e-5


def test_two_ways_to_compute_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="two ways"):
        tiny.world(options=EngineOptions(compile="regional", kernels="triton"))
