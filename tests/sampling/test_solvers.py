"""Solvers of films: interrupted anywhere they go on, they end on the clean latents, or say why not.

Their numbers are those of recorded official runs, see `bench parity` (`scheduler.safetensors`).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from worldline.core.errors import ConfigError
from worldline.sampling.schedules import euler_schedule, official_schedule
from worldline.sampling.solvers import SOLVERS, FewSteps, Solver, multistep


def few(*, euler: bool) -> FewSteps:
    """A live sampler of three steps."""
    schedule = euler_schedule(5.0, 3) if euler else official_schedule(10.0, (0, 250, 750))
    return FewSteps(schedule, euler=euler, noise=lambda i: drawn(10 + i))


def made(kind: str) -> Solver:
    """A solver by name."""
    return multistep(kind, 5.0, 5) if kind in SOLVERS else few(euler=kind == "euler")


def drawn(seed: int) -> Tensor:
    """Latents of noise."""
    return torch.randn(1, 16, 2, 2, 3, generator=torch.Generator().manual_seed(seed))


def flow_of(x: Tensor, step: int) -> Tensor:
    """Some flow that depends on all that is known."""
    return 0.5 * torch.roll(x, 1, -1) + 0.1 * step


@pytest.mark.parametrize("kind", [*SOLVERS, "dmd", "euler"])
def test_a_solver_that_is_interrupted_goes_on_as_if_it_were_not(kind: str) -> None:
    if kind in SOLVERS:
        pytest.importorskip("diffusers")
    whole, x = made(kind), drawn(0)
    states = [(x, whole.memory)]
    for step in range(len(whole.timesteps)):
        x = whole.step(flow_of(x, step), x)
        states.append((x, whole.memory))
    for at, (y, memory) in enumerate(states):
        other = made(kind)
        other.restore(memory)
        assert other.memory.step == at
        for step in range(at, len(other.timesteps)):
            y = other.step(flow_of(y, step), y)
        assert torch.equal(y, x)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("kind", SOLVERS)
def test_the_exact_flow_leads_to_the_clean_latents(kind: str, steps: int) -> None:
    pytest.importorskip("diffusers")
    solver, clean, x = multistep(kind, 10.0, steps), drawn(1), drawn(2)
    for sigma in solver.sigmas[:-1].tolist():
        x = solver.step((x - clean) / sigma, x)
    torch.testing.assert_close(x, clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "shift", "steps", "words"),
    [
        ("heun", 5.0, 10, "unknown solver"),
        ("unipc", 0.0, 10, "shift"),
        ("dpm++", float("nan"), 10, "shift"),
        ("unipc", 5.0, 0, "step count"),
        ("dpm++", 5.0, 1001, "step count"),
    ],
)
def test_numbers_that_cannot_be(kind: str, shift: float, steps: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        multistep(kind, shift, steps)


@pytest.mark.parametrize("kind", SOLVERS)
def test_without_diffusers_it_is_said_what_to_install(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("unipc", "dpmsolver"):
        module = f"diffusers.schedulers.scheduling_{name}_multistep"
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match="worldline\\[models\\]"):
        multistep(kind, 5.0, 4)


def test_diffusers_is_not_imported_before_a_solver_is_made() -> None:
    code = (
        "import sys, worldline.sampling.solvers as s; few = s.FewSteps; "
        "sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
