"""Training sequences for the pocket world model, drawn from encoded walks.

Half of the sequences begin with a picture exactly as serving does (mask 1 and the picture's latent
on latent frame 0, no motion before it), the others in the middle of a walk. The camera condition
is made by the product's own code. Where a model has walked itself (see `rollout`), its own latents
can stand as the past, while the true ones stay the target: so it learns to mend its errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket.scenes import caption, scenes
from worldline.core.camera import DEFAULT_INTRINSICS, scale_intrinsics
from worldline.ops.plucker import camera_condition

IMAGE_SHARE = 0.5  # sequences that begin with a picture
VIEW_SHARE = 0.4  # of those, how many begin at a start view of the page's gallery
NO_CAPTION = 0.15
ROLLED_SHARE = 0.5  # sequences with the model's own past, where there is one
ROLLED_LIMIT = 0.5  # mean squared latent error up to which such a past still shows the same place


class Batch(NamedTuple):
    """One step's data; `y` is cat(mask[4], picture latent[16])."""

    x0: Tensor  # [B, 16, T, h, w] the target
    past: Tensor  # [B, 16, T, h, w] the context: x0, or what the model made of it
    y: Tensor  # [B, 20, T, h, w]
    camera: Tensor  # [B, 384, T, h, w]
    image: Tensor  # [B] bool
    prompts: list[str]


class Sequences:
    """Encoded walks in memory and the drawing of batches from them."""

    def __init__(
        self, folder: Path, *, shards: int | None = None, rolled: Path | None = None
    ) -> None:
        paths = sorted(folder.glob("walks-*.npz"))[:shards]
        assert paths, f"no encoded walks in {folder}"
        parts: dict[str, list[np.ndarray]] = {
            k: [] for k in ("latents", "stills", "rel", "scene", "from_view")
        }
        for path in paths:
            with np.load(path) as shard:
                for name, values in parts.items():
                    values.append(shard[name])
        self.latents, self.stills, self.rel, self.scene, self.from_view = (
            np.concatenate(values) for values in parts.values()
        )
        with np.load(folder / "grey.npz") as file:
            self.grey: np.ndarray = file["grey"]
        self.views = np.flatnonzero(self.from_view)
        self.worlds = scenes()
        self.rolled = np.zeros((0, *self.latents.shape[1:]), np.float16)
        self.rolled_walks = np.zeros(0, np.int64)  # which walk each of them is
        if rolled is not None:
            files = [(i, rolled / path.name) for i, path in enumerate(paths)]
            files = [(i, file) for i, file in files if file.exists()]
            assert files, f"no own walks in {rolled}"
            self.rolled = np.concatenate([np.load(file)["rolled"] for _, file in files])
            size = len(self.latents) // len(paths)
            self.rolled_walks = np.concatenate(
                [np.arange(i * size, (i + 1) * size) for i, _ in files]
            )

    def draw(self, rng: np.random.Generator, size: int, length: int) -> Batch:
        """A random batch of `size` sequences of `length` latent frames."""
        picks = [self._own_past(rng, length) or self._plain(rng, length) for _ in range(size)]
        x0, past, rel, image = (
            np.stack(part) for part in zip(*(p[1:] for p in picks), strict=True)
        )
        prompts = []
        for pick in picks:
            blank = bool(rng.uniform() < NO_CAPTION)
            prompts.append("" if blank else caption(self.worlds[self.scene[pick.walk]], rng))
        latents, flags = torch.from_numpy(x0).transpose(1, 2), torch.from_numpy(image)
        return Batch(
            x0=latents,
            past=torch.from_numpy(past).transpose(1, 2),
            y=condition(latents, flags, self.grey),
            camera=cameras(rel, latents),
            image=flags,
            prompts=prompts,
        )

    def _plain(self, rng: np.random.Generator, length: int) -> _Pick:
        """A stretch of a walk with its true past; half begin with a picture."""
        count, total = self.latents.shape[:2]
        image = bool(rng.uniform() < IMAGE_SHARE)
        at_view = image and len(self.views) > 0 and bool(rng.uniform() < VIEW_SHARE)
        walk = int(rng.choice(self.views)) if at_view else int(rng.integers(count))
        low = 0 if image else 1  # group 0 has no motion: only a picture may stand there
        first = 0 if at_view else int(rng.integers(low, total - length + 1))
        z = self.latents[walk, first : first + length].astype(np.float32)
        rel = self.rel[walk, first : first + length].copy()
        if image:
            z[0] = self.stills[walk, first]
            rel[0] = np.eye(4)
        return _Pick(walk, z, z, rel, image)

    def _own_past(self, rng: np.random.Generator, length: int) -> _Pick | None:
        """A stretch of a walk that the model itself walked; None where it got lost on the way."""
        if len(self.rolled) == 0 or rng.uniform() >= ROLLED_SHARE:
            return None
        own = int(rng.integers(len(self.rolled)))
        walk = int(self.rolled_walks[own])
        first = int(rng.integers(0, self.latents.shape[1] - length + 1))
        part = slice(first, first + length)
        z, past = self.latents[walk, part].astype(np.float32), self.rolled[own, part]
        if np.square(past - z).mean() > ROLLED_LIMIT:
            return None
        return _Pick(walk, z, past.astype(np.float32), self.rel[walk, part], first == 0)


class _Pick(NamedTuple):
    walk: int
    x0: np.ndarray  # [T, 16, h, w]
    past: np.ndarray
    rel: np.ndarray  # [T, 4, 4]
    image: bool


def condition(x0: Tensor, image: Tensor, grey: np.ndarray) -> Tensor:
    """`y` `[B, 20, T, h, w]`: where `image`, latent frame 0 carries the picture and mask 1."""
    y = torch.zeros(x0.shape[0], 20, *x0.shape[2:])
    y[:, 4:] = torch.from_numpy(grey)[None, :, None]
    y[image, :4, 0] = 1.0
    y[image, 4:, 0] = x0[image, :, 0]
    return y


def cameras(rel: np.ndarray, latents: Tensor) -> Tensor:
    """Camera condition `[B, 384, T, h, w]` of relative poses `[B, T, 4, 4]`."""
    height, width = latents.shape[-2] * 8, latents.shape[-1] * 8
    k = torch.tensor(scale_intrinsics(DEFAULT_INTRINSICS, width, height), dtype=torch.float32)
    flat = torch.from_numpy(rel).flatten(0, 1)  # B·T 4 4
    rays = camera_condition(flat, k, height, width)[0]  # 384 B·T h w
    return rays.unflatten(1, rel.shape[:2]).transpose(0, 1)
