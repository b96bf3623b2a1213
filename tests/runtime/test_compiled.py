"""Regional compile: the same numbers to rounding, compiled once for every shape and all blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.kernels.choice_file import cache_folder
from worldline.runtime import pipeline
from worldline.runtime.compiled import keep_on_disk

WALK = [[("w",), (), ("l",)], None, [("s", "k")] * 3]

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"
)


def walk(options: EngineOptions) -> tuple[torch.Tensor, int]:
    """Latents of five chunks, and how many graphs were compiled after the first of them."""
    found, compiled = [], 0
    with tiny.world(options=options).start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
        for i in range(5):
            with torch.no_grad():
                clock = session.engine.clock()
                made = pipeline.next_chunk(session.engine, session.state, WALK[i % 3], clock)
            found.append(made.latents)
            compiled = compiled or counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == compiled, "something was compiled later"
    return torch.cat(found, dim=2), compiled


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_walk_equals_the_plain_one_and_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, nothing = walk(EngineOptions())
    assert nothing == 0
    cold, compiled = walk(EngineOptions(compile="regional"))
    # Functions, not blocks; keys that come alone may lie in memory as those beside queries do.
    assert compiled in (5, 6)
    assert not counters["graph_break"]
    assert (plain - cold).abs().max() <= 1e-5
    # As in a new process: everything is forgotten but the files.
    torch._dynamo.reset()
    counters.clear()
    warm, _ = walk(EngineOptions(compile="regional"))
    assert torch.equal(warm, cold)
    assert counters["inductor"]["fxgraph_cache_hit"] >= 5
    torch._dynamo.reset()
    counters.clear()


def test_compiled_code_outlives_a_reboot() -> None:
    environ: dict[str, str] = {}
    keep_on_disk(environ)
    assert environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache_folder() / "compiled")
    keep_on_disk(environ := {"TORCHINDUCTOR_CACHE_DIR": "/somewhere"})
    assert environ == {"TORCHINDUCTOR_CACHE_DIR": "/somewhere"}


def test_two_ways_to_compute_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="two ways"):
        tiny.world(options=EngineOptions(compile="regional", kernels="triton"))
