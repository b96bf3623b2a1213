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

from recipes.pocket import shards as files
from recipes.pocket.scenes import caption, scenes
from worldline.core.camera import DEFAULT_INTRINSICS, scale_intrinsics
from worldline.core.errors import InputError, ShapeError
from worldline.ops.plucker import camera_condition

IMAGE_SHARE = 0.5  # sequences that begin with a picture
VIEW_SHARE = 0.7  # of those in walks from a start view of the gallery, how many begin there
NO_CAPTION = 0.15
OTHER_WORDS = 0.2  # sequences in which only the wording changes on the way, the world stays
ROLLED_SHARE = 0.5  # sequences with the model's own past, where there is one
ROLLED_LIMIT = 0.5  # mean squared latent error up to which such a past still shows the same place


class Batch(NamedTuple):
    """One step's data; `y` is cat(mask[4], picture latent[16])."""

    x0: Tensor  # [B, 16, T, h, w] the target
    past: Tensor  # [B, 16, T, h, w] the context: x0, or what the model made of it
    y: Tensor  # [B, 20, T, h, w]
    camera: Tensor  # [B, 384, T, h, w]
    image: Tensor  # [B] bool
    captions: list[tuple[str, str]]  # the prompt at first, and the one after a change
    since: Tensor  # [B] the latent frame from which the second is in force; T: never


ENCODED: dict[str, files.Shape] = {
    "latents": ("n", "L", 16, "h", "w"), "stills": ("n", "L", 16, "h", "w"),
    "rel": ("n", "L", 4, 4), "from_view": ("n",),
}  # fmt: skip


class Sequences:
    """Encoded walks in memory and the drawing of batches from them.

    Broken files raise `InputError` or `ShapeError`, latents of two encoders `CheckpointError`.
    """

    def __init__(
        self, folder: Path, *, shards: int | None = None, rolled: Path | None = None
    ) -> None:
        self.walks: list[_Encoded] = []
        self.rolled: list[tuple[int, np.ndarray]] = []  # walk, the model's own latents of it
        made_by: dict[Path, str | None] = {}
        for path in files.find(folder, "encoded walks")[:shards]:
            walks, made_by[path] = read_walks(path)
            own = rolled / path.name if rolled is not None else None
            if own is not None and own.exists():
                latents, made_by[own] = read_rolled(own, (len(walks), *walks[0].latents.shape))
                self.rolled += enumerate(latents, len(self.walks))
            self.walks += walks
        if rolled is not None and not self.rolled:
            expected = f"files named as in {folder}"
            raise InputError(f"no own walks in {rolled}", expected=expected, got="none")
        self.grey, made_by[folder / "grey.npz"] = read_grey(folder)
        self.encoder = files.one_encoder(made_by)  # None where no file says
        self.worlds = scenes()
        begun = [int(walk.worlds[0]) for walk in self.walks]
        self.by_world = [
            [i for i, world in enumerate(begun) if world == k] for k in sorted(set(begun))
        ]

    def draw(self, rng: np.random.Generator, size: int, length: int) -> Batch:
        """A random batch of `size` sequences of `length` latent frames."""
        picks = [self._own_past(rng, length) or self._plain(rng, length) for _ in range(size)]
        x0, past, rel, image = (
            np.stack(part) for part in zip(*(p[1:] for p in picks), strict=True)
        )
        captions, since = zip(*(self._captions(p.worlds, rng) for p in picks), strict=True)
        latents, flags = torch.from_numpy(x0).transpose(1, 2), torch.from_numpy(image)
        return Batch(
            x0=latents,
            past=torch.from_numpy(past).transpose(1, 2),
            y=condition(latents, flags, self.grey),
            camera=cameras(rel, latents),
            image=flags,
            captions=list(captions),
            since=torch.tensor(since),
        )

    def _captions(
        self, worlds: np.ndarray, rng: np.random.Generator
    ) -> tuple[tuple[str, str], int]:
        """Words for a stretch that shows `worlds` `[T]`, and when the second ones begin."""
        since = int((worlds == worlds[0]).sum())  # a walk changes its world once
        first, second = (caption(self.worlds[i], rng) for i in (worlds[0], worlds[-1]))
        if since == len(worlds):  # nothing changes: sometimes no words, sometimes other words
            blank, again = rng.uniform() < NO_CAPTION, rng.uniform() < OTHER_WORDS
            first = "" if blank else first
            since = int(rng.integers(1, len(worlds))) if again else since
        return (first, second), since

    def _plain(self, rng: np.random.Generator, length: int) -> _Pick:
        """A stretch of a walk with its true past; half begin with a picture."""
        image = bool(rng.uniform() < IMAGE_SHARE)
        group = self.by_world[int(rng.integers(len(self.by_world)))]  # every world alike
        walk = self.walks[group[int(rng.integers(len(group)))]]
        # half of the walks begin at a start view
        at_view = image and walk.from_view and bool(rng.uniform() < VIEW_SHARE)
        low = 0 if image else 1  # group 0 has no motion: only a picture may stand there
        first = 0 if at_view else int(rng.integers(low, len(walk.latents) - length + 1))
        z = walk.latents[first : first + length].astype(np.float32)
        rel = walk.rel[first : first + length].copy()
        if image:
            z[0] = walk.stills[first]
            rel[0] = np.eye(4)
        return _Pick(walk.worlds[first : first + length], z, z, rel, image)

    def _own_past(self, rng: np.random.Generator, length: int) -> _Pick | None:
        """A stretch of a walk that the model itself walked; None where it got lost on the way."""
        if not self.rolled or rng.uniform() >= ROLLED_SHARE:
            return None
        number, own = self.rolled[int(rng.integers(len(self.rolled)))]
        walk = self.walks[number]
        first = int(rng.integers(0, len(walk.latents) - length + 1))
        part = slice(first, first + length)
        z, past = walk.latents[part].astype(np.float32), own[part].astype(np.float32)
        if np.square(past - z).mean() > ROLLED_LIMIT:
            return None
        return _Pick(walk.worlds[part], z, past, walk.rel[part], first == 0)


class _Encoded(NamedTuple):
    """One encoded walk of `L` latent frames."""

    latents: np.ndarray  # [L, 16, h, w]
    stills: np.ndarray
    rel: np.ndarray  # [L, 4, 4]
    worlds: np.ndarray  # [L] the scene that each latent frame shows
    from_view: bool


def read_walks(path: Path) -> tuple[list[_Encoded], str | None]:
    """The walks of one shard, and what names the encoder that made them."""
    shard = files.read(path, ENCODED, also=("scene", "encoder_print", "scene_prints"))
    files.check_scenes(path, shard.get("scene_prints"))
    latents, scene = shard["latents"], shard.get("scene", np.empty(0))
    if scene.shape == latents.shape[:1]:  # walks that stay may say so with one number
        scene = np.broadcast_to(scene[:, None], latents.shape[:2])
    if scene.shape != latents.shape[:2]:
        expected, got = list(latents.shape[:2]), list(scene.shape)
        raise ShapeError(f"scene in {path}", expected=expected, got=got)
    parts = latents, shard["stills"], shard["rel"], scene, shard["from_view"]
    walks = [_Encoded(*walk) for walk in zip(*parts, strict=True)]
    return walks, files.text_of(shard.get("encoder_print"))


def read_rolled(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, str | None]:
    """A model's own latents of the walks of `shape` `[n, L, 16, h, w]`, and their encoder."""
    file = files.read(path, {"rolled": shape}, also=("encoder_print",))
    return file["rolled"], files.text_of(file.get("encoder_print"))


def read_grey(folder: Path) -> tuple[np.ndarray, str | None]:
    """The latent of mid-grey `[16, h, w]`, and its encoder."""
    file = files.read(folder / "grey.npz", {"grey": (16, "h", "w")}, also=("encoder_print",))
    return file["grey"], files.text_of(file.get("encoder_print"))


class _Pick(NamedTuple):
    worlds: np.ndarray  # [T]
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
