"""Train the pocket world model: `python -m recipes.pocket.train_dit --data DIR --out DIR`.

Flow matching with teacher forcing on the product's DiT class (facts: pocket, pocket_dit). Runs as
`--ranks` processes of one thread each that share gradients over gloo: on a busy machine this beats
one process of two threads. Resumes from `OUT/dit.pt`; the rate is constant until `--decay` steps
before `--steps`, so a run can be stopped any time and finished later.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recipes.pocket import checkpoint
from recipes.pocket.export import load_pocket
from recipes.pocket.optim import Optimisers, rate_factor, update_ema
from recipes.pocket.processes import average_gradients, join, leave, start
from recipes.pocket.sequences import Batch, Sequences
from recipes.pocket.shards import one_encoder
from recipes.pocket.stage import check
from recipes.pocket.world_model import WINDOW, Noisy, Prompts, WorldModel, add_noise, x0_error

SHIFT = 5.0
PICTURE_WEIGHT = 0.5  # loss of the start picture's own latent: it is given, so easy
LONE_WEIGHT = 0.1  # loss of a first frame without past or picture, which serving never makes


class Settings(NamedTuple):
    """What a run needs beside data; `size` is sequences per process."""

    steps: int
    decay: int = 0
    size: int = 4
    length: int = WINDOW
    seed: int = 1
    muon_lr: float = 6e-3
    adam_lr: float = 1.5e-3
    ema: float = 0.998
    every: int = 100
    compiled: bool = False


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Muon takes the block matrices, AdamW embeddings, head, norms and biases."""
    return ".blocks." in name and parameter.ndim == 2


def draw_noise(batch: Batch, generator: torch.Generator) -> tuple[Noisy, Tensor]:
    """Noisy and context halves; also the noise, so that the target is `eps - x0`.

    Context: half of the sequences clean, a quarter noisy and told so, a quarter slightly noisy and
    told that it is clean, as the model's own imperfect frames will be.
    """
    size, _, frames = batch.x0.shape[:3]
    u = torch.rand(size, frames, generator=generator)
    t = SHIFT * u / (1 + (SHIFT - 1) * u)
    eps = torch.randn(batch.x0.shape, generator=generator)
    kind = torch.rand(size, 1, generator=generator)
    level = torch.rand(size, 1, generator=generator)
    told = torch.where(kind < 0.25, 0.3 * level, 0.0).expand(size, frames)
    real = torch.where((kind >= 0.25) & (kind < 0.5), 0.15 * level, told)
    clean = add_noise(batch.past, real, torch.randn(batch.x0.shape, generator=generator))
    return Noisy(clean, add_noise(batch.x0, t, eps), told, t), eps


def table_rows(model: WorldModel, batch: Batch) -> Prompts:
    """The batch's captions as rows of the text table."""
    first, after = ([pair[i] for pair in batch.captions] for i in (0, 1))
    return Prompts(model.text.rows(first), model.text.rows(after), batch.since)


def loss_weights(batch: Batch) -> Tensor:
    """Per sequence and frame, mean 1: little for a given picture or a frame without past."""
    weights = torch.ones(batch.x0.shape[0], batch.x0.shape[2])
    weights[:, 0] = torch.where(batch.image, PICTURE_WEIGHT, LONE_WEIGHT)
    return weights / weights.mean()


def loss_fn(
    model: WorldModel, inputs: Noisy, target: Tensor, weights: Tensor, extra: dict[str, Any]
) -> Tensor:
    """Weighted velocity error."""
    flow = model(inputs, **extra)
    error = (flow - target).square().mean(dim=(1, 3, 4))  # B T
    return (error * weights).mean()


class Trainer:
    """Model, optimisers, EMA and step count: all that a checkpoint holds."""

    def __init__(
        self, model: WorldModel, settings: Settings, path: Path, *, encoder: str | None = None
    ) -> None:
        self.model, self.settings, self.path = model, settings, path
        self.encoder = encoder  # names the autoencoder of the latents; None: they do not say
        self.optimisers = Optimisers(
            model, is_matrix, muon_lr=settings.muon_lr, adam_lr=settings.adam_lr
        )
        self.ema = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.step = 0
        if path.exists():
            self.restore(checkpoint.load(path))
        self._loss = torch.compile(loss_fn) if settings.compiled else loss_fn

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state. Raises `CheckpointError` for other latents."""
        old = state.get("encoder_print")
        if old and self.encoder:
            one_encoder({self.path: old, Path("--data"): self.encoder})
        self.encoder = self.encoder or old
        self.model.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.ema, self.step = state["ema"], state["step"]

    def save(self) -> None:
        """Replace the checkpoint file."""
        checkpoint.save(self.path, {
            "model": self.model.state_dict(), "ema": self.ema,
            "optimisers": self.optimisers.state_dict(), "step": self.step,
            "settings": self.settings._asdict(), "encoder_print": self.encoder,
        })  # fmt: skip

    def train_step(self, data: Sequences, rank: int) -> float:
        """One optimiser step on this process's share of the batch; returns its loss."""
        s = self.settings
        batch = data.draw(checkpoint.step_rng(s.seed, self.step, rank), s.size, s.length)
        inputs, eps = draw_noise(batch, checkpoint.step_noise(s.seed, self.step, rank))
        loss = self.backward(batch, inputs, eps - batch.x0)
        average_gradients(self.model)
        factor = rate_factor(self.step, warm_up=40, total=s.steps, decay=s.decay)
        self.optimisers.step(factor)
        self.step += 1
        update_ema(self.ema, self.model, self.step, s.ema)
        return loss

    def backward(self, batch: Batch, inputs: Noisy, target: Tensor) -> float:
        """Gradients of one batch; returns the loss."""
        h, w = batch.x0.shape[-2:]
        extra = {
            "y": batch.y,
            "camera": batch.camera,
            "prompts": table_rows(self.model, batch),
            "rope": self.model.dit.rope(range(batch.x0.shape[2]), h // 2, w // 2),
        }
        with torch.autocast("cpu", torch.bfloat16):
            loss = self._loss(self.model, inputs, target, loss_weights(batch), extra)
        loss.backward()
        return loss.item()


@torch.no_grad()
def validate(model: WorldModel, data: Sequences, *, size: int = 24) -> dict[float, float]:
    """x0 error at the sampler's times on fixed held-out sequences with clean context."""
    batch = data.draw(checkpoint.step_rng(7, 0), size, WINDOW)
    h, w = batch.x0.shape[-2:]
    rope = model.dit.rope(range(WINDOW), h // 2, w // 2)
    result = {}
    for time_value in (0.9375, 0.625):
        t = torch.full((size, WINDOW), time_value)
        eps = torch.randn(batch.x0.shape, generator=checkpoint.step_noise(7, 0))
        noisy = add_noise(batch.x0, t, eps)
        with torch.autocast("cpu", torch.bfloat16):
            flow = model(
                Noisy(batch.x0, noisy, torch.zeros_like(t), t),
                y=batch.y, camera=batch.camera, prompts=table_rows(model, batch), rope=rope,
            )  # fmt: skip
        result[time_value] = x0_error(flow, noisy, batch.x0, t)[:, 1:].mean().item()
    return result


@torch.no_grad()
def begin_from(weights: Path) -> WorldModel:
    """A model with the weights of a packed file; words it did not know get fresh rows."""
    old = load_pocket(weights, None)[1]
    model = WorldModel()
    state = old.state_dict()
    table, words = state["text.table"], old.text.params.words
    fresh = model.text.table.clone()
    fresh[-1] = table[-1]  # the null row
    for row, word in enumerate(model.text.params.words):
        if word in words:
            fresh[row] = table[words.index(word)]
    model.load_state_dict({**state, "text.table": fresh})
    return model


def run(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """One training process."""
    settings = Settings(
        steps=args.steps, decay=args.decay, seed=args.seed, size=8 // ranks, compiled=True
    )
    torch.set_num_threads(1)
    join(rank, ranks, args.out)
    torch.manual_seed(settings.seed)
    path = args.out / "dit.pt"
    init: Path | None = None if path.exists() else args.init
    data = Sequences(args.data, rolled=args.rolled)
    model = WorldModel() if init is None else begin_from(init)
    trainer = Trainer(model, settings, path, encoder=data.encoder)
    counts = f"{len(data.walks)} walks, {len(data.rolled)} of its own"
    print(f"rank {rank}: {counts}, from step {trainer.step}", flush=True)
    began, mean = time.time(), 0.0
    while trainer.step < settings.steps:
        loss = trainer.train_step(data, rank)
        check(loss, trainer.step)
        mean = 0.98 * mean + 0.02 * loss if mean else loss
        if rank == 0 and trainer.step % 20 == 0:
            print(
                f"step {trainer.step} loss {mean:.4f} {(time.time() - began) / 20:.3f} s/step",
                flush=True,
            )
            began = time.time()
        if rank == 0 and (trainer.step % settings.every == 0 or trainer.step == settings.steps):
            trainer.save()
    leave()


def main() -> None:
    """Command line; starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rolled", type=Path, help="folder written by recipes.pocket.rollout")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="a weights file to begin from, with new data")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--decay", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start(run, args.ranks, args)


if __name__ == "__main__":
    main()
