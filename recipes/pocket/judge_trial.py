"""One run of the judgement: who is judged, how much of everything, where it goes, who is told.

Also the walks that several groups need: held-out walks with their true pictures and latents, and
walks by script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.pocket.encode import encode_walk
from recipes.pocket.judge_subject import Begin, Subject, Told, picture_latents
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import Scene, caption, scenes
from recipes.pocket.walks import (
    METRES,
    RIG,
    STRIDE,
    Walk,
    frame_poses,
    make_walk,
    relative_poses,
    render,
    view_state,
    walk_seed,
)
from worldline.core.camera import CameraState, advance

SPLIT = "test"  # walks of other splits are trained on


class Plan(NamedTuple):
    """How much is judged; lengths in latent frames (a quarter of a second each)."""

    walks: int = 64  # held-out walks
    latents: int = 17  # of each of them
    minute_walks: int = 24  # walks that run for a minute; the long ones do too
    long_walks: int = 8  # walks that run for longer
    endurance: tuple[int, ...] = (240, 720)
    places: int = 28  # from which memory is tested
    views: int | None = None  # start views for the commands; None: all
    starts: int = 32  # walks that are begun with words
    pairs: int = 2  # switches per pair of worlds
    unseen: int = 3  # walks in each world never seen
    unseen_latents: int = 25
    speed: tuple[Path, ...] = ()  # JSON of the commands that measure speed


QUICK = Plan(
    walks=8, latents=9, minute_walks=8, long_walks=0, endurance=(40,), places=4, views=3, starts=8,
    pairs=0, unseen=1, unseen_latents=13,
)  # fmt: skip


class Judged(NamedTuple):
    """Walks with their truth: frames uint8 `[n, F, H, W, 3]` and latents `[n, 16, L, h, w]`."""

    walks: list[Walk]
    frames: np.ndarray
    x0: Tensor
    begin: Begin


class Trial:
    """A subject and a plan, with the held-out walks made once and the renderers kept."""

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        folder: Path,
        *,
        told: Callable[[str], Told] | None = None,
    ) -> None:
        self.subject = subject
        self.plan = plan
        self.folder = folder
        self._told = told
        self.scenes = scenes()
        self.renderers = [Renderer(scene) for scene in self.scenes]
        self.worlds = subject.worlds
        assert self.worlds, "the word list knows none of the worlds"

    def told(self, what: str) -> Told:
        """A listener for the progress of one step."""
        return self._told(what) if self._told else lambda done, total: None

    @cached_property
    def held_out(self) -> Judged:
        """The held-out walks, the known worlds by turns."""
        walks = [self.walk(i, self.plan.latents) for i in range(self.plan.walks)]
        return self.with_truth(walks)

    def walk(self, index: int, latents: int) -> Walk:
        """Held-out walk `index`."""
        world = self.worlds[index % len(self.worlds)]
        return make_walk(world, walk_seed(SPLIT, index), latents)

    def with_truth(self, walks: list[Walk], worlds: Sequence[Scene] | None = None) -> Judged:
        """Render and encode walks of equal length, in the pocket worlds or in others."""
        renderers = self.renderers if worlds is None else [Renderer(scene) for scene in worlds]
        told, frames, latents = self.told("rendering"), [], []
        for i, walk in enumerate(walks):
            frames.append(render(walk, renderers))
            latents.append(encode_walk(self.subject.vae, frames[-1])[0])
            told(i + 1, len(walks))
        x0 = torch.from_numpy(np.stack(latents)).float().transpose(1, 2)  # n 16 L h w
        words = [""] * len(walks) if worlds is not None else self.words(walks)
        return Judged(walks, np.stack(frames), x0, self.begin(walks, words, x0[:, :, 0]))

    def begin(self, walks: list[Walk], words: list[str], picture: Tensor | None) -> Begin:
        """What the model is given for these walks."""
        rows = self.subject.model.text.rows(words)
        return Begin(rows, picture, np.stack([relative_poses(walk) for walk in walks]))

    def start(self, walks: list[Walk], words: list[str] | None = None) -> Begin:
        """What the model is given, when only the first picture of each walk is needed."""
        first = np.stack([self.true_at(walk, [0])[0] for walk in walks])
        picture = picture_latents(self.subject, first)
        return self.begin(walks, self.words(walks) if words is None else words, picture)

    def true_at(self, walk: Walk, at: Sequence[int], world: int | None = None) -> np.ndarray:
        """True pictures at the end of latent frames `at`, `[len(at), H, W, 3]`, maybe elsewhere."""
        found = []
        for i in at:
            pose = walk.c2w[i].copy()
            pose[:3, 3] *= METRES
            found.append(self.renderers[walk.world(i) if world is None else world].frame(pose))
        return np.stack(found)

    def true_end(self, walk: Walk) -> np.ndarray:
        """The true pictures of a walk's last latent frame, `[4, H, W, 3]`."""
        poses = frame_poses(walk)[-STRIDE:]
        renderer = self.renderers[walk.world(len(walk.c2w) - 1)]
        return np.stack([renderer.frame(pose) for pose in poses])

    def words(self, walks: list[Walk]) -> list[str]:
        """A caption of each walk's first world; at a start view its own prompt."""
        rng = np.random.default_rng(len(walks))
        found = []
        for walk in walks:
            scene = self.scenes[walk.scene]
            prompts = [v.prompt for v in scene.starts if _stands_at(walk, view_state(v))]
            found.append(prompts[0] if prompts else caption(scene, rng))
        return found


def _stands_at(walk: Walk, state: CameraState) -> bool:
    return bool(np.allclose(walk.c2w[0], state.c2w))


def scripted(scene: int, start: CameraState, keys: Sequence[str]) -> Walk:
    """A walk from `start` that holds the given keys, one entry per latent frame."""
    state, poses = start, [start.c2w]
    for held in keys:
        state = advance(state, held, RIG)
        poses.append(state.c2w)
    return Walk(scene, ("", *keys), np.stack(poses), from_view=True)


def command_walk(scene: int, view: int, keys: str, latents: int) -> Walk:
    """One command held from a start view for `latents - 1` latent frames."""
    start = view_state(scenes()[scene].starts[view])
    return scripted(scene, start, [keys] * (latents - 1))
