"""The loop that every training shares: steps, a log line, checkpoints, and what to do when lost."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol, TypeVar

from worldline.core.errors import WorldlineError

Val = TypeVar("Val", contravariant=True)
LOG = 50  # steps between log lines


class Lost(WorldlineError):
    """The loss is no number any more; the last checkpoint is from before."""


class Stage(Protocol[Val]):
    """What the loop drives; `settings` has `steps` and `every` (steps between checkpoints)."""

    step: int

    @property
    def settings(self) -> Any: ...

    def train_step(self, rank: int = 0) -> float:
        """One step of this process; returns its loss."""
        ...

    def save(self) -> None:
        """Replace the checkpoint."""
        ...

    def judge(self, val: Val) -> str:
        """How good the averaged weights are, in words."""
        ...


def train(stage: Stage[Val], val: Val, rank: int = 0) -> None:
    """Run up to the settings' steps. Raises `Lost` before a checkpoint could be spoilt."""
    s, mean, began = stage.settings, 0.0, time.time()
    while stage.step < s.steps:
        loss = stage.train_step(rank)
        check(loss, stage.step)
        mean = 0.98 * mean + 0.02 * loss if mean else loss
        if rank > 0:
            continue
        if stage.step % LOG == 0:
            pace = (time.time() - began) / LOG
            print(f"step {stage.step} loss {mean:.4f} {pace:.3f} s/step", flush=True)
            began = time.time()
        if stage.step % s.every == 0 or stage.step == s.steps:
            stage.save()
            print(f"step {stage.step} {stage.judge(val)}", flush=True)
            began = time.time()


def check(loss: float, step: int) -> None:
    """Raise `Lost` unless `loss` is a finite number."""
    if not math.isfinite(loss):
        raise Lost(
            f"the loss of step {step} is lost; the last checkpoint is from before",
            expected="a finite number",
            got=loss,
        )
