"""Samplers of whole films: the next latents from the flow, with an explicit, restorable memory.

The guided models take the multistep solvers of diffusers (UniPC of kind bh2 and dpm++, both of
order 2), set to the official sigmas; they give the recorded official trajectories, bit for bit
(`bench parity`). diffusers is imported when a solver is made, and never otherwise. `FewSteps` are
the live samplers behind the same face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from worldline.core.errors import ConfigError
from worldline.sampling.dmd import euler_step, renoise, to_x0
from worldline.sampling.schedules import (
    TRAIN_STEPS,
    Schedule,
    euler_schedule,
    official_table,
)

SOLVERS = ("unipc", "dpm++")
_ORDER = 2


class Memory(NamedTuple):
    """What a solver knows after `step` steps: everything but the latents themselves.

    `outputs` are the newest estimates of the clean latents, oldest first (None where there was no
    such step yet), `last` the latents before the newest step, `order` that step's order.
    """

    step: int = 0
    outputs: tuple[Tensor | None, ...] = ()
    last: Tensor | None = None
    lower: int = 0
    order: int = 1


class Solver(Protocol):
    """Takes latents from pure noise to clean, one flow at a time."""

    @property
    def timesteps(self) -> Sequence[float]:
        """What the network is asked at, from high to low noise."""
        ...

    @property
    def memory(self) -> Memory:
        """What must be kept to go on later, besides the latents."""
        ...

    def restore(self, memory: Memory) -> None:
        """Stand where another solver of the same numbers stood."""
        ...

    def step(self, flow: Tensor, x: Tensor) -> Tensor:
        """The latents of the next noise level, or the clean ones; `x` and `flow` are alike."""
        ...


class Multistep:
    """A multistep solver of diffusers on a table of sigmas, float32."""

    def __init__(self, kind: str, timesteps: Sequence[int], sigmas: Tensor) -> None:
        """`sigmas` is one longer than `timesteps`. Raises `ConfigError` without diffusers."""
        self._timesteps = tuple(timesteps)
        self._solver = _diffusers_solver(kind)
        # What `set_timesteps` would do, with the official spacing in place of its own.
        self._solver.num_inference_steps = len(self._timesteps)
        self._solver.sigmas = sigmas.to("cpu", torch.float32)
        self._solver.timesteps = torch.tensor(self._timesteps, dtype=torch.int64)
        self._step = 0

    @property
    def timesteps(self) -> Sequence[float]:
        """See `Solver`."""
        return self._timesteps

    @property
    def sigmas(self) -> Tensor:
        """Noise levels, one more than steps, float32; the last is 0."""
        return self._solver.sigmas

    @property
    def memory(self) -> Memory:
        """See `Solver`."""
        solver = self._solver
        return Memory(
            step=self._step,
            outputs=tuple(solver.model_outputs),
            last=getattr(solver, "last_sample", None),
            lower=solver.lower_order_nums,
            order=getattr(solver, "this_order", 1),
        )

    def restore(self, memory: Memory) -> None:
        """See `Solver`."""
        solver, done = self._solver, self._timesteps[: memory.step]
        solver.model_outputs = list(memory.outputs) or [None] * _ORDER
        solver.lower_order_nums = memory.lower
        solver.last_sample, solver.this_order = memory.last, memory.order
        padded = [None] * _ORDER + [torch.tensor(t) for t in done]
        solver.timestep_list = padded[-_ORDER:]
        solver._step_index = memory.step if memory.step else None
        self._step = memory.step

    def step(self, flow: Tensor, x: Tensor) -> Tensor:
        """See `Solver`."""
        if self._step == 0:
            self._solver.set_begin_index(0)  # equal timesteps are told apart by their place
        t = self._solver.timesteps[self._step]
        self._step += 1
        return self._solver.step(flow, t, x, return_dict=False)[0]


class FewSteps:
    """The live samplers: to the clean latents in every step, and fresh noise on again; or Euler."""

    def __init__(
        self, schedule: Schedule, *, euler: bool, noise: Callable[[int], Tensor] | None = None
    ) -> None:
        """`noise` draws for step `i`, 1 for the first re-noising; Euler needs none."""
        self._schedule, self._euler, self._noise = schedule, euler, noise
        self._step = 0

    @property
    def timesteps(self) -> Sequence[float]:
        """See `Solver`."""
        return self._schedule.timesteps

    @property
    def memory(self) -> Memory:
        """See `Solver`."""
        return Memory(step=self._step)

    def restore(self, memory: Memory) -> None:
        """See `Solver`."""
        self._step = memory.step

    def step(self, flow: Tensor, x: Tensor) -> Tensor:
        """See `Solver`."""
        schedule, step = self._schedule, self._step
        sigma = schedule.sigma_x0[step]
        self._step += 1
        if step == len(schedule.sigma_renoise):
            return to_x0(x, flow, sigma)
        following = schedule.sigma_renoise[step]
        if self._euler:
            return euler_step(x, flow, sigma, following)
        assert self._noise is not None, "re-noising needs noise"
        return renoise(to_x0(x, flow, sigma), self._noise(step + 1), following)


def multistep(kind: str, shift: float, steps: int) -> Multistep:
    """The solver `kind` with `steps` steps on the official sigmas.

    UniPC starts just below pure noise and dpm++ at it, as in the official code. Raises
    `ConfigError` for another kind, a bad shift or count, and where diffusers is not installed.
    """
    if kind == "unipc":
        table = official_table(shift, _checked(steps))
        return Multistep(kind, table.timesteps.tolist(), torch.from_numpy(table.sigmas))
    if kind == "dpm++":
        levels = euler_schedule(shift, steps).sigma_x0
        timesteps = (TRAIN_STEPS * np.array(levels)).astype(np.int64).tolist()
        return Multistep(kind, timesteps, torch.tensor([*levels, 0.0]))
    raise ConfigError("unknown solver", expected=" or ".join(SOLVERS), got=kind)


def _checked(steps: int) -> int:
    euler_schedule(1.0, steps)  # the same limits, and their words
    return steps


def _diffusers_solver(kind: str) -> Any:
    try:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import (
            DPMSolverMultistepScheduler,
        )
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
    except ImportError as error:
        raise ConfigError(
            "guided films need diffusers' solvers",
            expected="pip install 'worldline[models]'",
            got=error,
        ) from None
    numbers = {"prediction_type": "flow_prediction", "solver_order": _ORDER}
    if kind == "unipc":
        return UniPCMultistepScheduler(**numbers, use_flow_sigmas=True)
    return DPMSolverMultistepScheduler(
        **numbers, use_flow_sigmas=True, algorithm_type="dpmsolver++"
    )
