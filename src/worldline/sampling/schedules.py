"""Step tables: which timesteps a network is asked at, and which sigmas belong to them.

Three families (facts: lingbot_model, section 5). The official one truncates its timesteps to
integers, so neighbours collide: the step to x0 looks up the first of two equal timesteps, the
re-noising the second. The warped one (Self-Forcing) keeps floats and has no collisions. Euler
schedules end at sigma 0. Tables keep the float precision of the code they follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.errors import ConfigError

TRAIN_STEPS = 1000
# The first sigma of the official scheduler at shift 1, as it comes out of its float32 table.
_SIGMA_MAX = float(np.float32(0.999))


class Schedule(NamedTuple):
    """Steps of one denoising run.

    `timesteps[i]` goes into the network, `sigma_x0[i]` turns its flow into x0, and
    `sigma_renoise[i]` (one fewer) is the noise level after step i, on which step i+1 works.
    """

    timesteps: tuple[int | float, ...]
    sigma_x0: tuple[float, ...]
    sigma_renoise: tuple[float, ...]


def thinned(schedule: Schedule, count: int) -> Schedule:
    """`count` of a schedule's steps: the first, the last, and evenly spread between; all if fewer.

    Each step then works on the noise level its successor of the chosen ones expects, so any sampler
    can run it. Raises `ConfigError` for less than one step.
    """
    _check_count(count)
    total = len(schedule.timesteps)
    if count >= total:
        return schedule
    chosen = [round(i * (total - 1) / max(1, count - 1)) for i in range(count)]
    return Schedule(
        tuple(schedule.timesteps[i] for i in chosen),
        tuple(schedule.sigma_x0[i] for i in chosen),
        tuple(schedule.sigma_renoise[i - 1] for i in chosen[1:]),
    )


class OfficialTable(NamedTuple):
    """Every step of the official scheduler: `timesteps` int64 `[n]`, `sigmas` float32 `[n+1]`."""

    timesteps: NDArray[np.int64]
    sigmas: NDArray[np.float32]


class WarpedTable(NamedTuple):
    """Every step of the warped scheduler, float32 `[1000]`, from high to low noise."""

    timesteps: NDArray[np.float32]
    sigmas: NDArray[np.float32]


def official_table(shift: float, count: int = TRAIN_STEPS) -> OfficialTable:
    """The official scheduler at `count` steps: timesteps truncated, a last sigma of 0."""
    _check_shift(shift)
    u = np.linspace(_SIGMA_MAX, 0.0, count + 1)[:-1]
    sigmas = shift * u / (1 + (shift - 1) * u)
    timesteps = (TRAIN_STEPS * sigmas).astype(np.int64)
    return OfficialTable(timesteps, np.append(sigmas, 0.0).astype(np.float32))


def official_schedule(shift: float, indices: Sequence[int]) -> Schedule:
    """Few-step schedule of the official code: `indices` into its 1000 steps, rising.

    Raises `ConfigError` for a shift that is not positive and indices out of order or range.
    """
    _check_indices(indices)
    table = official_table(shift)
    timesteps = tuple(int(table.timesteps[i]) for i in indices)
    matches = [np.flatnonzero(table.timesteps == t) for t in timesteps]
    first = tuple(float(table.sigmas[match[0]]) for match in matches)
    second = tuple(float(table.sigmas[match[min(1, len(match) - 1)]]) for match in matches)
    return Schedule(timesteps, first, second[1:])


def warped_table(shift: float) -> WarpedTable:
    """The Self-Forcing scheduler: sigmas from 1 down to just above 0, no truncation."""
    _check_shift(shift)
    # torch and numpy round this range differently; the code this follows uses torch.
    u = torch.linspace(1.0, 0.0, TRAIN_STEPS + 1)[:-1].numpy()
    scale = np.float32(shift)
    sigmas = scale * u / (1 + np.float32(shift - 1) * u)
    return WarpedTable(sigmas * np.float32(TRAIN_STEPS), sigmas)


def warped_schedule(shift: float, steps: Sequence[int]) -> Schedule:
    """Few-step schedule of third-party servers: unwarped `steps` in 1..1000, falling.

    Raises `ConfigError` for a shift that is not positive and steps out of order or range.
    """
    _check_indices([TRAIN_STEPS - step for step in steps])
    table = warped_table(shift)
    chosen = [TRAIN_STEPS - step for step in steps]
    timesteps = tuple(float(table.timesteps[i]) for i in chosen)
    sigmas = tuple(float(table.sigmas[i]) for i in chosen)
    return Schedule(timesteps, sigmas, sigmas[1:])


def euler_schedule(shift: float, steps_count: int) -> Schedule:
    """Evenly spaced flow-matching steps, shifted: sigma of u = 1 - i/n; the last one ends at 0."""
    _check_shift(shift)
    _check_count(steps_count)
    u = 1 - np.arange(steps_count) / steps_count
    sigmas = tuple((shift * u / (1 + (shift - 1) * u)).tolist())
    return Schedule(tuple(TRAIN_STEPS * sigma for sigma in sigmas), sigmas, sigmas[1:])


def shifted_twice_schedule(shift: float, steps_count: int) -> Schedule:
    """The discrete Euler scheduler of diffusers: its range ends at an already shifted minimum.

    Differs from `euler_schedule` in spacing: the last step is much shorter.
    """
    _check_shift(shift)
    _check_count(steps_count)
    scale, least = np.float32(shift), np.float32(1 / TRAIN_STEPS)
    lowest = float(scale * least / (1 + np.float32(shift - 1) * least))
    u = np.linspace(TRAIN_STEPS, lowest * TRAIN_STEPS, steps_count) / TRAIN_STEPS
    sigmas = (shift * u / (1 + (shift - 1) * u)).astype(np.float32)
    levels = tuple(sigmas.tolist())
    return Schedule(tuple((sigmas * np.float32(TRAIN_STEPS)).tolist()), levels, levels[1:])


def _check_shift(shift: float) -> None:
    if not (math.isfinite(shift) and shift > 0):
        raise ConfigError("unusable shift", expected="a positive number", got=shift)


def _check_count(count: int) -> None:
    if not 1 <= count <= TRAIN_STEPS:
        raise ConfigError("unusable step count", expected=f"1..{TRAIN_STEPS}", got=count)


def _check_indices(indices: Sequence[int]) -> None:
    rising = all(a < b for a, b in pairwise(indices))
    if not indices or not rising or indices[0] < 0 or indices[-1] >= TRAIN_STEPS:
        raise ConfigError(
            "unusable denoising steps",
            expected=f"at least one, in order, within {TRAIN_STEPS}",
            got=list(indices),
        )
