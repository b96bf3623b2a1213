"""Who is judged, and walking on its own: the pocket networks, many walks at once.

The mathematics is that of `streaming.generate` (a test holds them to the same bits); here camera
conditions are made frame by frame, so that walks of minutes fit into memory, and someone is told
how far things are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket.encode import encode_walk, grey_latent
from recipes.pocket.export import load_pocket
from recipes.pocket.scenes import Scene, scenes
from recipes.pocket.sequences import cameras
from recipes.pocket.streaming import Sampler, Stream
from recipes.pocket.world_model import WorldModel
from worldline.models.pocket.vae import PocketVAE

WIDTH, HEIGHT = 160, 96
BATCH = 32  # walks that run together
WARM = 3  # latent frames decoded before one that is looked at: the decoder's memory is short
# Words that carry nothing and are in no word list.
SMALL_WORDS = frozenset({"a", "an", "with", "and", "in", "of", "the", "on", "at", "under", "from"})

Told = Callable[[int, int], None]  # done, of how many


def _nobody(done: int, total: int) -> None:
    """Progress that no one watches."""


class Subject(NamedTuple):
    """The networks under judgement and how they sample."""

    vae: PocketVAE
    model: WorldModel
    times: Sampler
    renoise: bool
    grey: Tensor  # [16, h, w] the latent of mid-grey, which stands where no picture is given

    @property
    def worlds(self) -> tuple[int, ...]:
        """The worlds whose prompts are all in the word list: those it was trained on."""
        known = set(self.model.text.params.words) | SMALL_WORDS
        return tuple(i for i, scene in enumerate(scenes()) if _words(scene) <= known)


class Begin(NamedTuple):
    """What walks of equal length begin with and hear; `picture` None: words alone."""

    rows: Tensor  # [n, S] the prompts' rows in the text table
    picture: Tensor | None  # [n, 16, h, w] latents of the start pictures
    rel: np.ndarray  # [n, L, 4, 4] motion of each latent frame


def load_subject(
    weights: Path | None, training: Sequence[Path] | None, *, times: Sampler, renoise: bool = False
) -> Subject:
    """Read a weights file (default: the package's) or the checkpoints of a running training."""
    return make_subject(*load_pocket(weights, training), times=times, renoise=renoise)


def make_subject(
    vae: PocketVAE, model: WorldModel, *, times: Sampler, renoise: bool = False
) -> Subject:
    """A subject of loaded networks."""
    return Subject(vae, model, times, renoise, torch.from_numpy(grey_latent(vae, HEIGHT, WIDTH)))


def _words(scene: Scene) -> set[str]:
    return {word for view in scene.starts for word in re.findall("[a-z]+", view.prompt.lower())}


def picture_latents(subject: Subject, pictures: np.ndarray) -> Tensor:
    """Latents `[n, 16, h, w]` of start pictures `[n, H, W, 3]`."""
    found = [encode_walk(subject.vae, picture[None])[0][0] for picture in pictures]
    return torch.from_numpy(np.stack(found)).float()


@torch.inference_mode()
def walk_on(
    subject: Subject,
    begin: Begin,
    *,
    seed: int = 0,
    later: Mapping[int, Tensor] | None = None,
    truth: Tensor | None = None,
    told: Told = _nobody,
) -> Tensor:
    """Latents `[n, 16, L, h, w]` of whole walks; with `truth` every frame sees the true past.

    `later` holds new rows `[n, S]` by the latent frame from which they are in force.
    """
    count, length = begin.rel.shape[:2]
    made = torch.empty(count, *subject.grey.shape[:1], length, *subject.grey.shape[1:])
    for low in range(0, count, BATCH):
        part = slice(low, min(low + BATCH, count))
        heard = {i: rows[part] for i, rows in (later or {}).items()}
        stream = Stream(subject.model, begin.rows[part])
        generator = torch.Generator().manual_seed(seed + low)
        for i in range(length):
            if i in heard:
                stream.say(heard[i])
            given = _condition(subject, begin, part, i)
            noise = torch.randn(given[0][:, 4:].shape, generator=generator)
            with torch.autocast("cpu", torch.bfloat16):
                x0 = stream.step(*given, noise, times=subject.times, renoise=subject.renoise)
                x0 = x0.float()
                stream.commit(x0 if truth is None else truth[part, :, i : i + 1], *given)
            made[part, :, i] = x0[:, :, 0]
            told(low * length + (i + 1) * (part.stop - low), count * length)
    return made


def _condition(subject: Subject, begin: Begin, part: slice, i: int) -> tuple[Tensor, Tensor]:
    """`y` and camera of latent frame `i`, as `sequences.condition` and `cameras` make them."""
    count = part.stop - part.start
    y = torch.zeros(count, 4 + len(subject.grey), 1, *subject.grey.shape[1:])
    y[:, 4:, 0] = subject.grey
    if i == 0 and begin.picture is not None:
        y[:, :4] = 1.0
        y[:, 4:, 0] = begin.picture[part]
    return y, cameras(begin.rel[part, i : i + 1], y)


@torch.inference_mode()
def decode(subject: Subject, latents: Tensor, *, told: Told = _nobody) -> np.ndarray:
    """Pictures uint8 `[n, F, H, W, 3]` of whole clips of latents `[n, 16, L, h, w]`."""
    pictures = []
    for i, clip in enumerate(latents):
        with torch.autocast("cpu", torch.bfloat16):
            pictures.append(to_pictures(subject.vae.decode(clip[None]))[0])
        told(i + 1, len(latents))
    return np.stack(pictures)


def decode_at(
    subject: Subject, latents: Tensor, at: Sequence[int], *, told: Told = _nobody
) -> np.ndarray:
    """The last picture of each latent frame in `at`, `[n, len(at), H, W, 3]`.

    Only the latents just before are decoded too, which is cheap in walks of minutes.
    """
    found = []
    for number, i in enumerate(at):
        first = max(0, i - WARM)
        found.append(decode(subject, latents[:, :, first : i + 1])[:, -1])
        told(number + 1, len(at))
    return np.stack(found, axis=1)


def to_pictures(video: Tensor) -> np.ndarray:
    """`[n, 3, F, H, W]` in -1..1 as uint8 `[n, F, H, W, 3]`."""
    return ((video.float().movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
