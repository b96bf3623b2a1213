"""Few-step distillation against softness: `python -m recipes.pocket.distill --help`.

The teacher is the trained flow model, guided by an earlier checkpoint of itself (Karras et al.
2024, "Guiding a diffusion model with a bad version of itself"): both are unsure about new scenery,
the earlier one more so, and stepping away from it undoes the softness that both share. Guiding
while walking would cost two networks per pass, so a student learns it in one: it walks its own few
steps of the preset's sampler, with its own past as context where there is one (`rollout`), and is
told there what the guided teacher would have done. Leaves `OUT/dit.pt` in train_dit's form.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recipes.pocket import checkpoint
from recipes.pocket.optim import Optimisers, rate_factor, update_ema
from recipes.pocket.processes import average_gradients, join, leave, start
from recipes.pocket.sequences import Batch, Sequences
from recipes.pocket.shards import one_encoder
from recipes.pocket.stage import train
from recipes.pocket.streaming import SHIPPED, Sampler
from recipes.pocket.train_dit import draw_noise, is_matrix, loss_weights, table_rows
from recipes.pocket.world_model import WINDOW, Noisy, WorldModel
from worldline.core.errors import ConfigError, InputError

VAL_SEED = 7  # of the sequences on which a run is judged


class Settings(NamedTuple):
    """What a run needs beside data; `size` is sequences per process."""

    steps: int
    decay: int = 0
    size: int = 4
    length: int = WINDOW
    seed: int = 1
    guidance: float = 1.6  # about half of it is learnt in a few hundred steps: see README
    times: Sampler = SHIPPED
    muon_lr: float = 3e-4  # more is noise: the push to learn is small beside the flow
    adam_lr: float = 1e-4
    ema: float = 0.98
    every: int = 100
    compiled: bool = False


class Teacher(NamedTuple):
    """The flow model and an earlier checkpoint of it; neither is ever changed."""

    model: WorldModel
    early: WorldModel
    encoder: str | None = None  # names the latents they know
    step: int = 0


class Given(NamedTuple):
    """What all models see of a batch: the past, and the rest of `WorldModel.forward`."""

    clean: Tensor  # [B, 16, T, h, w]
    told: Tensor  # [B, T] how noisy the past is said to be
    noise: Tensor  # [B, 16, T, h, w] where sampling begins
    extra: dict[str, Any]


def read_teacher(path: Path, early: Path) -> Teacher:
    """Averaged weights of two checkpoints of one training. Raises `CheckpointError`."""
    states = [checkpoint.load(p) for p in (path, early)]
    one_encoder({p: s.get("encoder_print") for p, s in zip((path, early), states, strict=True)})
    if states[1]["step"] >= states[0]["step"]:
        expected, got = f"fewer than {states[0]['step']} steps", states[1]["step"]
        raise InputError("--early must be from before --teacher", expected=expected, got=got)
    models = []
    for state in states:
        model = WorldModel()
        model.load_state_dict(state["ema"])
        models.append(model.eval().requires_grad_(False))
    return Teacher(*models, encoder=states[0].get("encoder_print"), step=states[0]["step"])


def prepare(model: WorldModel, batch: Batch, generator: torch.Generator) -> Given:
    """The past as in training, noise to begin from, and everything else."""
    inputs, noise = draw_noise(batch, generator)
    frames, h, w = batch.x0.shape[2:]
    extra = {
        "y": batch.y,
        "camera": batch.camera,
        "prompts": table_rows(model, batch),
        "rope": model.dit.rope(range(frames), h // 2, w // 2),
    }
    return Given(inputs.clean, inputs.t_clean, noise, extra)


def flow(model: WorldModel, given: Given, x: Tensor, now: Tensor) -> Tensor:
    """The flow `[B, 16, T, h, w]` at `x` and time `now` (a scalar: one graph for all times)."""
    when = now.expand(given.told.shape)
    return model(Noisy(given.clean, x, given.told, when), **given.extra)


def loss_fn(
    model: WorldModel, given: Given, at: tuple[Tensor, Tensor], target: Tensor, weights: Tensor
) -> Tensor:
    """Weighted error of the flow at `at` (x and time)."""
    error = (flow(model, given, *at) - target).square().mean(dim=(1, 3, 4))  # B T
    return (error * weights).mean()


class Distiller:
    """Student, teachers, optimisers, EMA and step count."""

    def __init__(self, teacher: Teacher, settings: Settings, path: Path) -> None:
        self.teacher, self.settings, self.path = teacher, settings, path
        self.student, self.step = deepcopy(teacher.model).requires_grad_(True), 0
        s = settings
        self.optimisers = Optimisers(self.student, is_matrix, muon_lr=s.muon_lr, adam_lr=s.adam_lr)
        self.ema = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        self.data: Sequences | None = None
        if path.exists():
            self.restore(checkpoint.load(path))
        self._loss = torch.compile(loss_fn) if s.compiled else loss_fn
        self._flow = torch.compile(flow) if s.compiled else flow

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of this stage. Raises `InputError`, `ConfigError`."""
        if "distilled" not in state:
            expected, got = "a folder of its own", "the dit.pt of train_dit"
            raise InputError(f"{self.path} is not of this stage", expected=expected, got=got)
        if state["guidance"] != self.settings.guidance:
            got = self.settings.guidance
            raise ConfigError("another guidance", expected=state["guidance"], got=got)
        self.student.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.ema, self.step = state["ema"], state["distilled"]

    def save(self) -> None:
        """Replace the checkpoint file."""
        checkpoint.save(self.path, {
            "model": self.student.state_dict(), "ema": self.ema,
            "optimisers": self.optimisers.state_dict(), "step": self.teacher.step,
            "distilled": self.step, "guidance": self.settings.guidance,
            "encoder_print": self.teacher.encoder,
        })  # fmt: skip

    def feed(self, data: Sequences) -> None:
        """The sequences to learn from. Raises `CheckpointError` for another encoder's."""
        if data.encoder and self.teacher.encoder:
            one_encoder({Path("--teacher"): self.teacher.encoder, Path("--data"): data.encoder})
        self.data = data

    @torch.no_grad()
    def walk(self, model: WorldModel, given: Given, count: int) -> tuple[Tensor, Tensor]:
        """Where `model` stands after `count` steps of the sampler, and the time there."""
        x, times = given.noise, self.settings.times
        for now, after in pairwise(times[: count + 1]):
            x = x + (after - now) * self._flow(model, given, x, torch.tensor(now)).float()
        return x, torch.tensor(times[count])

    @torch.no_grad()
    def guided(self, given: Given, x: Tensor, now: Tensor) -> Tensor:
        """The teacher's flow, away from the early model's."""
        good = self._flow(self.teacher.model, given, x, now).float()
        if self.settings.guidance == 1:
            return good
        early = self._flow(self.teacher.early, given, x, now).float()
        return good + (self.settings.guidance - 1) * (good - early)

    def train_step(self, rank: int = 0) -> float:
        """One optimiser step; all processes work at the same step of the sampler."""
        assert self.data is not None, "feed it first"
        s = self.settings
        batch = self.data.draw(checkpoint.step_rng(s.seed, self.step, rank), s.size, s.length)
        given = prepare(self.student, batch, checkpoint.step_noise(s.seed, self.step, rank))
        passes = len(s.times) - 1
        order = checkpoint.step_rng(s.seed, self.step // passes).permutation(passes)
        with torch.autocast("cpu", torch.bfloat16):
            at = self.walk(self.student, given, int(order[self.step % passes]))
            target = self.guided(given, *at)
            loss = self._loss(self.student, given, at, target, loss_weights(batch))
        loss.backward()
        average_gradients(self.student)
        self.optimisers.step(rate_factor(self.step, warm_up=20, total=s.steps, decay=s.decay))
        self.step += 1
        update_ema(self.ema, self.student, self.step, s.ema)
        return loss.item()

    @torch.no_grad()
    def judge(self, val: Batch) -> str:
        """How much of the guidance the averaged student has learnt, at each step of the sampler.

        100 %: it does what the guided teacher does; 0 %: what the teacher does by itself.
        """
        student = deepcopy(self.teacher.model)
        student.load_state_dict(self.ema)
        given = prepare(student, val, checkpoint.step_noise(VAL_SEED, 0))
        x, shares = given.noise, []
        with torch.autocast("cpu", torch.bfloat16):
            for now, after in pairwise(self.settings.times):
                models = student, self.teacher.model, self.teacher.early
                own, good, early = (flow(m, given, x, torch.tensor(now)).float() for m in models)
                push = (self.settings.guidance - 1) * (good - early)
                left = (own - good - push).square().mean() / push.square().mean().clamp(min=1e-12)
                shares.append(f"{1 - left.item():.0%}")
                x = x + (after - now) * own
        return f"of the guidance learnt, by step: {' '.join(shares)}"


def run(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """One training process."""
    torch.set_num_threads(1)
    join(rank, ranks, args.out)
    settings = Settings(
        steps=args.steps, decay=args.decay, seed=args.seed, size=8 // ranks,
        guidance=args.guidance, compiled=True,
    )  # fmt: skip
    data = Sequences(args.data, rolled=args.rolled)
    distiller = Distiller(read_teacher(args.teacher, args.early), settings, args.out / "dit.pt")
    distiller.feed(data)
    counts = f"{len(data.walks)} walks, {len(data.rolled)} of its own"
    print(f"rank {rank}: {counts}, from step {distiller.step}", flush=True)
    val = data.draw(checkpoint.step_rng(VAL_SEED, 0), 4, settings.length)
    train(distiller, val, rank)
    leave()


def main(words: Sequence[str] | None = None) -> None:
    """Command line; starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="encoded walks")
    parser.add_argument("--rolled", type=Path, help="folder written by recipes.pocket.rollout")
    parser.add_argument("--teacher", type=Path, required=True, help="dit.pt of train_dit")
    parser.add_argument("--early", type=Path, required=True, help="dit.pt at about a third of it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--decay", type=int, default=300)
    parser.add_argument("--guidance", type=float, default=Settings(0).guidance)
    parser.add_argument("--ranks", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    start(run, args.ranks, args)


if __name__ == "__main__":
    main()
