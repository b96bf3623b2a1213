"""A whole world by kernels against the same in plain PyTorch, and how the kernels are chosen."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.kernels.interpreter import Interpreter
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.kernels import choice
from worldline.kernels.choice import attention_chooser, choose_math
from worldline.runtime import pipeline

CHUNKS = 6
BOUND = 1e-5  # of a class B saving
CPU = torch.device("cpu")


@torch.no_grad()
def latents(kernels: Literal["auto", "triton"]) -> tuple[str, Tensor]:
    """What computed, and clean latents of six chunks: the ring turns over, the prompt changes."""
    world = tiny.world(options=EngineOptions(kernels=kernels))
    found: list[Tensor] = []
    with world.start(
        tiny.picture(), tiny.PROMPT, 3, window=7, sink=2, steps=1, width=32, height=32
    ) as session:
        for i in range(CHUNKS):
            if i == 3:
                text = session.engine.text("a green valley under a very wide sky")
                session.state.prompt = pipeline.conditions.switch_prompt(
                    session.state.prompt, text, 0
                )
            walk = [("w",), ("w", "l"), ()]
            clock = session.engine.clock()
            chunk = pipeline.next_chunk(session.engine, session.state, walk, clock)
            found.append(chunk.latents)
    return world.kernels, torch.cat(found, dim=2)


def test_a_world_by_kernels_is_the_same_world(interpreted: Interpreter) -> None:
    name, plain = latents("auto")
    assert name == "torch", "CPUs keep to plain PyTorch"
    name, fused = interpreted.call(latents, "triton")
    assert name == "triton"
    assert plain.abs().max() > 0.1
    assert 0 < float((fused - plain).abs().max()) <= BOUND


def test_plain_pytorch_unless_there_is_a_reason() -> None:
    for kind, mode in (("auto", "exact"), ("auto", "fast"), ("auto", "8bit"), ("torch", "fast")):
        assert choose_math(kind, mode=mode, device=CPU).name == "torch"
        assert attention_chooser(mode=mode, device=CPU) is None


def test_kernels_that_cannot_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(choice, "find_spec", lambda name: ModuleSpec(name, None))
    with pytest.raises(ConfigError, match="a CUDA device"):
        choose_math("triton", mode="fast", device=CPU)
    with pytest.raises(ConfigError, match="auto or torch or triton"):
        choose_math("cuda", mode="fast", device=CPU)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the package triton"):
        choose_math("triton", mode="exact", device=torch.device("cuda"))


def test_auto_takes_plain_pytorch_on_gpus_without_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cuda = torch.device("cuda")
    assert choose_math("auto", mode="fast", device=cuda).name == "torch"
    with pytest.raises(ConfigError, match=r"compute capability 8\.0"):
        choose_math("triton", mode="fast", device=cuda)
