"""Teach the decoder to forgive the world model: `python -m recipes.pocket.tune_decoder --help`.

Half of the sequences are the walks' own latents, half what the world model predicts for them from
the true past (`rollout --forced`); the target is always the true picture. The encoder and the PCA
stay as they are, so every latent made before stays valid. Leaves `OUT/vae.pt`, which encode, export
and evaluate take as any other, and resumes from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket import checkpoint, measures
from recipes.pocket.encode import load_vae
from recipes.pocket.optim import Optimisers, rate_factor, update_ema
from recipes.pocket.processes import average_gradients, join, leave, start
from recipes.pocket.sequences import read_rolled, read_walks
from recipes.pocket.shards import encoder_print, find, one_encoder, read
from recipes.pocket.stage import train
from recipes.pocket.train_vae import (
    LATENTS,
    NOISE,
    Settings,
    fold_group,
    is_matrix,
    picture_loss,
    to_folded,
)
from worldline.core.errors import InputError
from worldline.models.pocket.vae import PocketVAE

PREDICTED_SHARE = 0.5
LIMIT = 0.5  # mean squared latent error beyond which a prediction shows another place
EDGES = 1.0  # weight of the edge energy, without which doubtful pictures would turn soft


class Walk(NamedTuple):
    """A walk of `L` latent frames with its pictures."""

    frames: np.ndarray  # [F, H, W, 3] uint8
    latents: np.ndarray  # [L, 16, h, w]
    stills: np.ndarray
    predicted: np.ndarray


class Pair(NamedTuple):
    """A batch: pictures, the latents to decode, and which frames count in the loss."""

    x: Tensor  # [B, T, 12, H, W]
    z: Tensor  # [B, T, 16, h, w]
    counts: Tensor  # [B, T, 1, 1, 1]


def load_pairs(data: Path, latents: Path, predicted: Path, *, encoder: str) -> list[list[Walk]]:
    """Walks of every shard that all three folders have; `encoder` names the one that is tuned."""
    shards: list[list[Walk]] = []
    made_by: dict[Path, str | None] = {Path("--vae"): encoder}
    for path in find(predicted, "predicted latents"):
        encoded, made_by[latents / path.name] = read_walks(latents / path.name)
        shape = len(encoded), *encoded[0].latents.shape
        guesses, made_by[path] = read_rolled(path, shape)
        _, length, _, h, w = shape
        pixels = shape[0], 4 * length - 3, 8 * h, 8 * w, 3
        frames = read(data / path.name, {"frames": pixels})["frames"]
        shards.append([
            Walk(f, walk.latents, walk.stills, guess)
            for f, walk, guess in zip(frames, encoded, guesses, strict=True)
        ])  # fmt: skip
    one_encoder(made_by)
    return shards


def draw(walks: list[Walk], rng: np.random.Generator, size: int, noise: torch.Generator) -> Pair:
    """`size` stretches of LATENTS + 1 latent frames at full width.

    The first frame of a stretch within a walk only gives the decoder a past, as in a stream; one
    that begins with a picture counts in full.
    """
    pictures, latents, counts = [], [], []
    for _ in range(size):
        walk = walks[int(rng.integers(len(walks)))]
        first = int(rng.integers(len(walk.latents) - LATENTS))
        part = slice(first, first + LATENTS + 1)
        z, guess = (a[part].astype(np.float32) for a in (walk.latents, walk.predicted))
        own = bool(rng.uniform() < PREDICTED_SHARE) and np.square(guess - z).mean() <= LIMIT
        still = not own and bool(rng.uniform() < 0.5)
        sigma = 0.0 if own else NOISE * float(rng.uniform())
        z = guess if own else z
        if still:
            z[0] = walk.stills[first]
        groups = [
            fold_group(walk.frames, first + k, still=still and k == 0) for k in range(LATENTS + 1)
        ]
        z_noisy = torch.from_numpy(z)
        latents.append(z_noisy + sigma * torch.randn(z_noisy.shape, generator=noise))
        pictures.append(np.stack(groups))
        counts.append([1.0 if still or first == 0 else 0.0, *[1.0] * LATENTS])
    weights = torch.tensor(counts)[:, :, None, None, None]  # B T 1 1 1
    return Pair(to_folded(np.stack(pictures)), torch.stack(latents), weights)


def edge_energy(x: Tensor) -> Tensor:
    """Mean |difference| of neighbours in cells of 16 pixels, `[B, T, 12, H/16, W/16]`."""
    across = x.diff(dim=-1, append=x[..., -1:]).abs()
    down = x.diff(dim=-2, append=x[..., -1:, :]).abs()
    both = (across + down).flatten(0, 1)  # B·T 12 H W
    return torch.nn.functional.avg_pool2d(both, 16).unflatten(0, x.shape[:2])


def loss_fn(vae: PocketVAE, pair: Pair) -> Tensor:
    """Picture loss of the frames that count, and how much their edge energy is off."""
    out = vae.decode_folded(pair.z, None)[0].float()
    share = pair.counts.mean()
    edges = (edge_energy(out) - edge_energy(pair.x)) * pair.counts
    return (picture_loss((out - pair.x) * pair.counts) + EDGES * edges.abs().mean()) / share


class Tuner:
    """Autoencoder, optimisers of its decoder, EMA and steps: all that a checkpoint holds."""

    def __init__(
        self, vae: PocketVAE, walks: list[Walk], path: Path, *, settings: Settings, made: int = 0
    ) -> None:
        self.vae, self.walks, self.path, self.settings = vae, walks, path, settings
        self.step, self.made = 0, made  # steps of this stage, and of the training before it
        for name, parameter in vae.named_parameters():
            parameter.requires_grad_(name.startswith("dec_"))
        rate = settings.rate
        self.optimisers = Optimisers(vae, is_matrix, muon_lr=rate, adam_lr=rate)
        self.ema = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
        if path.exists():
            self.restore(checkpoint.load(path))
        self._loss = torch.compile(loss_fn) if settings.compiled else loss_fn

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of this stage. Raises `CheckpointError`, `InputError`."""
        if "tuned" not in state:
            expected, got = "a folder of its own", "the vae.pt of train_vae"
            raise InputError(f"{self.path} is not of this stage", expected=expected, got=got)
        here = encoder_print(self.vae.state_dict())
        one_encoder({Path("--vae"): here, self.path: encoder_print(state["ema"])})
        self.vae.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.ema, self.step, self.made = state["ema"], state["tuned"], state["step"]

    def save(self) -> None:
        """Replace the checkpoint file."""
        checkpoint.save(self.path, {
            "model": self.vae.state_dict(), "ema": self.ema,
            "optimisers": self.optimisers.state_dict(), "step": self.made, "tuned": self.step,
        })  # fmt: skip

    def train_step(self, rank: int = 0) -> float:
        """One optimiser step on this process's share of the batch; returns its loss."""
        s = self.settings
        noise = checkpoint.step_noise(s.seed, self.step, rank)
        pair = draw(self.walks, checkpoint.step_rng(s.seed, self.step, rank), s.size, noise)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self._loss(self.vae, pair)
        loss.backward()
        average_gradients(self.vae)
        self.optimisers.step(rate_factor(self.step, warm_up=20, total=s.steps, decay=s.decay))
        self.step += 1
        update_ema(self.ema, self.vae, self.step)
        return loss.item()

    def judge(self, val: list[Walk]) -> str:
        """What the averaged weights make of held-out walks."""
        vae = PocketVAE(self.vae.params)
        vae.load_state_dict(self.ema)
        return judge(vae, val)


@torch.no_grad()
def judge(vae: PocketVAE, walks: list[Walk]) -> str:
    """PSNR (dB) and edge energy against the truth, of true and of predicted latents."""
    found = []
    for name in ("latents", "predicted"):
        z = torch.from_numpy(np.stack([getattr(walk, name) for walk in walks]).astype(np.float32))
        made = torch.cat([vae.decode(walk[None]) for walk in z.transpose(1, 2)])  # n 3 F H W
        made = ((made.movedim(1, -1) + 1) * 127.5).round().byte().numpy()
        truth = np.stack([walk.frames for walk in walks])
        edges = measures.edge_energy(made).mean() / measures.edge_energy(truth).mean()
        found.append(f"{name} {measures.psnr(made, truth).mean():.2f} dB, edges {edges:.3f}")
    return "; ".join(found)


def run(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """One training process; the last shard of pairs is held out."""
    torch.set_num_threads(1)
    join(rank, ranks, args.out)
    settings = Settings(
        steps=args.steps, decay=args.decay, seed=args.seed, size=4 // ranks, every=100,
        compiled=True, rate=args.rate,
    )  # fmt: skip
    vae = load_vae(args.vae)
    encoder = encoder_print(vae.state_dict())
    shards = load_pairs(args.data, args.latents, args.predicted, encoder=encoder)
    if len(shards) < 2:
        expected = "2 shards or more, one is held out"
        raise InputError("too few predictions", expected=expected, got=len(shards))
    walks, val = [walk for shard in shards[:-1] for walk in shard], shards[-1][:6]
    made = int(checkpoint.load(args.vae)["step"])
    tuner = Tuner(vae, walks, args.out / "vae.pt", settings=settings, made=made)
    if rank == 0 and tuner.step == 0:
        print(f"before: {judge(vae, val)}", flush=True)
    train(tuner, val, rank)
    leave()


def main() -> None:
    """Command line; starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="rendered walks")
    parser.add_argument("--latents", type=Path, required=True, help="the same walks encoded")
    parser.add_argument("--predicted", type=Path, required=True, help="from rollout --forced")
    parser.add_argument("--vae", type=Path, required=True, help="vae.pt of train_vae")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--decay", type=int, default=300)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--ranks", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start(run, args.ranks, args)


if __name__ == "__main__":
    main()
