"""Train the pocket autoencoder: `python -m recipes.pocket.train_vae --data DIR --out DIR`.

Starts as the PCA codec of its data, then learns what that misses (facts: pocket_vae). Latents carry
noise while training so that the decoder forgives the errors of the world model. Resumes from
`OUT/vae.pt` when present; the rate is constant until `--decay` steps before `--steps`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket import checkpoint
from recipes.pocket.export import load_pocket
from recipes.pocket.optim import Optimisers, rate_factor, update_ema
from recipes.pocket.processes import average_gradients, join, leave, start
from recipes.pocket.shards import find, read
from recipes.pocket.stage import train
from worldline.core.errors import InputError
from worldline.models.pocket.params import POCKET_VAE, PocketVAEParams
from worldline.models.pocket.vae import FOLD, STRIDE, PocketVAE

LATENTS = 4  # latent frames of a training crop
CROP = 80  # pixels across
NOISE = 0.1  # latent noise is uniform in 0..this


def load_frames(folder: Path, shards: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
    """Frames of every `ranks`-th of the first `shards` shards, uint8 `[walks, F, H, W, 3]`."""
    paths = find(folder, "walks")[:shards][rank::ranks]
    if not paths:
        raise InputError("too few shards for the processes", expected=ranks, got=rank)
    first = read(paths[0], {"frames": ("n", "F", "H", "W", 3)})["frames"]
    count, *walk = first.shape
    frames = np.empty((len(paths) * count, *walk), np.uint8)  # one array, no copies in between
    for i, path in enumerate(paths):
        shard = read(path, {"frames": (count, *walk)})["frames"]
        frames[i * count : (i + 1) * count] = shard
    return frames


def fold_group(walk: np.ndarray, latent: int, *, still: bool) -> np.ndarray:
    """The 4 frames of one latent frame `[4, H, W, 3]`; `still` repeats its last one four times."""
    if still or latent == 0:
        return np.repeat(walk[FOLD * latent : FOLD * latent + 1], FOLD, axis=0)
    return walk[FOLD * latent - FOLD + 1 : FOLD * latent + 1]


def to_folded(frames: np.ndarray) -> Tensor:
    """Frames `[..., 4, H, W, 3]` uint8 -> folded `[..., 12, H, W]` float in [-1, 1]."""
    x = torch.from_numpy(frames).movedim(-1, -3).flatten(-4, -3)
    return x.float() / 127.5 - 1.0


def batch(frames: np.ndarray, rng: np.random.Generator, size: int) -> Tensor:
    """Random crops `[size, LATENTS, 12, H, CROP]`; half begin with a still picture."""
    crops = []
    for _ in range(size):
        walk = frames[rng.integers(len(frames))]
        first = int(rng.integers((walk.shape[0] - 1) // FOLD + 2 - LATENTS))
        left = int(rng.integers(walk.shape[2] - CROP + 1))
        still = bool(rng.uniform() < 0.5)
        groups = [fold_group(walk, first + k, still=still and k == 0) for k in range(LATENTS)]
        crops.append(np.stack(groups)[:, :, :, left : left + CROP])
    return to_folded(np.stack(crops))


@torch.no_grad()
def fit_pca(
    vae: PocketVAE, frames: np.ndarray, rng: np.random.Generator, *, groups: int = 600
) -> None:
    """Fill the codec's buffers from random aligned blocks; scale channels by sensitivity^(1/4).

    Channels that matter little to the picture (edge phases) get a smaller scale, so the world
    model settles them late in the denoising and spends less of its loss on them.
    """
    blocks = []
    for _ in range(groups):
        walk = frames[rng.integers(len(frames))]
        group = to_folded(
            fold_group(walk, int(rng.integers((walk.shape[0] - 1) // FOLD + 1)), still=False)
        )
        x = group.unfold(1, STRIDE, STRIDE).unfold(2, STRIDE, STRIDE)  # 12 h w 8 8
        blocks.append(x.permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1))
    x = torch.cat(blocks).double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    z = vae.params.latent_channels
    values, vectors = values.flip(0)[:z], vectors.flip(1)[:, :z]  # block z
    pca = (vectors / values.sqrt()).T
    vae.pca.copy_(pca.view(vae.pca.shape))
    vae.pca_bias.copy_(-(pca @ mean))
    # pixel_shuffle order: channel (frame·3+rgb)·4 + i2·2+j2, times 16, + i4·4+j4; row = i4·2+i2
    order = torch.arange(len(mean)).view(12, 4, 2, 4, 2).permute(0, 2, 4, 1, 3).flatten()
    vae.pca_inverse.copy_((vectors * values.sqrt())[order][:, :, None, None])
    vae.pca_mean.copy_(mean[order])
    scale = values.pow(0.25)
    vae.scale.copy_(scale / scale.square().mean().sqrt())


def picture_loss(error: Tensor) -> Tensor:
    """What an error of the picture `[B, T, 12, H, W]` costs: itself, its edges, its square."""
    dx, dy = error.diff(dim=-1), error.diff(dim=-2)
    picture = error.abs().mean() + 0.5 * (dx.abs().mean() + dy.abs().mean())
    return picture + 20 * error.square().mean()


def loss_fn(vae: PocketVAE, x: Tensor, noise: Tensor) -> Tensor:
    """Picture loss of `x` `[B, T, 12, H, W]` through noisy latents, plus a leash on the latents."""
    z = vae.encode_folded(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # B T 16 h w
    out, _ = vae.decode_folded(z + noise, None)
    picture = picture_loss(out.float() - x)
    white = (z.float() / vae.scale[:, None, None]).movedim(2, 0).flatten(1)  # 16 n
    leash = white.mean(1).square() + (white.std(1) - 1).square()
    leash = leash.mean() + 0.1 * (white.abs() - 4).relu().square().mean()
    return picture + 0.002 * leash


@torch.no_grad()
def psnr(vae: PocketVAE, frames: np.ndarray, *, latent_noise: float = 0.0) -> float:
    """Mean per-frame PSNR (dB) of walks through `encode` and `decode`."""
    noise = torch.Generator().manual_seed(0)
    total = []
    for walk in frames:
        video = torch.from_numpy(walk).movedim(-1, 0)[None].float() / 127.5 - 1.0  # 1 3 F H W
        z = vae.encode(video)
        z = z + latent_noise * torch.randn(z.shape, generator=noise)
        error = (vae.decode(z) - video).square().mean(dim=(0, 1, 3, 4)) / 4
        total.append(-10 * error.log10().mean().item())
    return float(np.mean(total))


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Muon takes the residual blocks and the three 1x1 transitions, AdamW the rest."""
    transitions = {"enc_down.weight", "dec_up4.weight", "dec_up2.weight"}
    return parameter.ndim == 4 and (".conv" in name or name in transitions)


class Settings(NamedTuple):
    """What a run needs beside data."""

    steps: int
    decay: int = 0
    size: int = 6
    seed: int = 1
    every: int = 200
    compiled: bool = False
    rate: float = 2e-3
    pca_groups: int = 600


class Trainer:
    """Autoencoder, optimisers, EMA and step count: all that a checkpoint holds."""

    def __init__(
        self,
        params: PocketVAEParams,
        frames: np.ndarray,
        path: Path,
        *,
        settings: Settings,
        init: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.vae, self.frames, self.path = PocketVAE(params), frames, path
        self.settings, self.step = settings, 0
        state = checkpoint.load(path) if path.exists() else None
        if init is not None:
            self.vae.load_state_dict(init)
        elif state is None:
            rng = np.random.default_rng(settings.seed)
            fit_pca(self.vae, frames, rng, groups=settings.pca_groups)
        self.vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        rate = settings.rate
        self.optimisers = Optimisers(self.vae, is_matrix, muon_lr=rate, adam_lr=rate)
        self.ema = {name: tensor.clone() for name, tensor in self.vae.state_dict().items()}
        if state is not None:
            self.vae.load_state_dict(state["model"])
            self.optimisers.load_state_dict(state["optimisers"])
            self.ema, self.step = state["ema"], state["step"]
        self._loss = torch.compile(loss_fn) if settings.compiled else loss_fn

    def save(self) -> None:
        """Replace the checkpoint file."""
        state = {
            "model": self.vae.state_dict(),
            "ema": self.ema,
            "optimisers": self.optimisers.state_dict(),
            "step": self.step,
        }
        checkpoint.save(self.path, state)

    def train_step(self, rank: int = 0) -> float:
        """One optimiser step on this process's share of the batch; returns its loss."""
        s = self.settings
        x = batch(self.frames, checkpoint.step_rng(s.seed, self.step, rank), s.size)
        noise = checkpoint.step_noise(s.seed, self.step, rank)
        grid = x.shape[-2] // STRIDE, x.shape[-1] // STRIDE
        shape = (s.size, LATENTS, self.vae.params.latent_channels, *grid)
        sigma = NOISE * torch.rand(s.size, 1, 1, 1, 1, generator=noise)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self._loss(self.vae, x, sigma * torch.randn(shape, generator=noise))
        loss.backward()
        average_gradients(self.vae)
        self.optimisers.step(rate_factor(self.step, warm_up=100, total=s.steps, decay=s.decay))
        self.step += 1
        update_ema(self.ema, self.vae, self.step)
        return loss.item()

    def judge(self, val: np.ndarray) -> str:
        """PSNR (dB) of the averaged weights on `val`, with clean latents and with noise .15."""
        vae = PocketVAE(self.vae.params)
        vae.load_state_dict(self.ema)
        clean, noisy = psnr(vae, val), psnr(vae, val, latent_noise=0.15)
        return f"val {clean:.2f} dB, noise .15: {noisy:.2f}"


def run(rank: int, ranks: int, args: argparse.Namespace) -> None:
    """One training process; each draws its share of every batch from its share of the shards."""
    torch.set_num_threads(1)
    join(rank, ranks, args.out)
    settings = Settings(
        steps=args.steps, decay=args.decay, seed=args.seed, size=6 // ranks, compiled=True
    )
    frames = load_frames(args.data, args.shards, rank, ranks)
    val = load_frames(args.val, 1)[:6, :33]
    path = args.out / "vae.pt"
    init = load_pocket(args.init, None)[0].state_dict() if args.init and not path.exists() else None
    train(Trainer(POCKET_VAE, frames, path, settings=settings, init=init), val, rank)
    leave()


def main() -> None:
    """Command line; starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="a weights file to begin from, with new data")
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--decay", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2, choices=(1, 2, 3))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start(run, args.ranks, args)


if __name__ == "__main__":
    main()
