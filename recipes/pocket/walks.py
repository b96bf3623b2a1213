"""Seeded walks through a scene with the product's own camera rig, and their rendered frames.

One set of actions is held constant inside each latent frame (4 pixel frames); the pose of latent
frame l is the pose of its last pixel frame. Positions are kept in the product's units, in which a
full-speed step is `RIG.move`; the renderer sees metres. Walks keep `KEEP_AWAY` metres from objects.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import PERIOD, Scene, StartView, clearance, scenes
from worldline.core.camera import CameraState, Rig, advance, interpolate_poses, relative_pose
from worldline.core.rotation import turn

RIG = Rig(move=0.05, yaw_deg=5.0, pitch_deg=3.0, pitch_limit_deg=18.0)
METRES = 7.0  # metres per unit of translation: a full-speed step is 0.35 m
KEEP_AWAY = 1.5
STRIDE = 4  # pixel frames per latent frame
NEVER = 1 << 30  # the switch of a walk that stays in its world
SWITCH_SHARE = 0.35  # walks in which the world changes on the way
SAME_LAYOUT = 0.6  # of those, how many only change light and colours where they can
COMMANDS = {
    "w": 0.13, "s": 0.10, "a": 0.08, "d": 0.08, "j": 0.09, "l": 0.09, "i": 0.07, "k": 0.07,
    "": 0.08, "wj": 0.06, "wl": 0.06, "aj": 0.02, "dl": 0.02, "wa": 0.02, "wd": 0.02,
    "wi": 0.015, "wk": 0.015,
}  # fmt: skip


class Walk(NamedTuple):
    """A path: scene, held keys and poses `[L, 4, 4]` (product units); latent 0 is the start.

    From latent frame `switch` on, the world around the walker is `after`.
    """

    scene: int
    keys: tuple[str, ...]
    c2w: np.ndarray
    from_view: bool
    switch: int = NEVER
    after: int = 0

    def world(self, latent: int) -> int:
        """The scene that latent frame `latent` shows."""
        return self.after if latent >= self.switch else self.scene


def view_state(view: StartView, *, pitch_deg: float = 0.0) -> CameraState:
    """The camera at a start view, position in product units."""
    c2w = np.eye(4)
    c2w[:3, :3] = turn(np.eye(3), view.yaw_deg, pitch_deg)
    c2w[0, 3], c2w[2, 3] = view.x / METRES, view.z / METRES
    return CameraState(c2w, pitch_deg)


def _free_state(rooms: tuple[Scene, ...], rng: np.random.Generator) -> CameraState:
    """Anywhere with room, looking anywhere, mostly level."""
    while True:
        x, z = rng.uniform(0, PERIOD, 2)
        if all(clearance(room, x, z) > KEEP_AWAY for room in rooms):
            pitch = RIG.pitch_deg * float(rng.choice((0, 0, 0, -1, 1, -2, 2)))
            yaw = float(rng.uniform(0, 360))
            return view_state(StartView("", x, z, yaw, "", 0), pitch_deg=pitch)


def _segment(state: CameraState, rng: np.random.Generator) -> str:
    """The next command; a tilted camera is brought back more often than tilted further."""
    key = str(
        rng.choice(list(COMMANDS), p=np.array(list(COMMANDS.values())) / sum(COMMANDS.values()))
    )
    away = "i" if state.pitch_deg > 0 else "k"
    if away in key and abs(state.pitch_deg) > rng.uniform(3, 15):
        return key.replace(away, "k" if away == "i" else "i")
    return key


def make_walk(scene_index: int, seed: int, latents: int, *, switch: bool = False) -> Walk:
    """A walk of `latents` latent frames; half start at one of the scene's start views.

    With `switch` some of them change the world on the way, at a latent frame, as a new prompt does.
    """
    scene = scenes()[scene_index]
    rng = np.random.default_rng((seed, scene_index))
    when, after = _draw_switch(scene_index, rng, latents) if switch else (NEVER, scene_index)
    rooms = (scene, scenes()[after])  # room enough in both
    from_view = bool(rng.uniform() < 0.5)
    state = (
        view_state(scene.starts[int(rng.integers(len(scene.starts)))])
        if from_view
        else _free_state(rooms, rng)
    )
    poses, keys = [state.c2w], [""]
    held, left = "", 0
    while len(poses) < latents:
        if left == 0:
            held, left = _segment(state, rng), int(rng.integers(1, 7))
        step = advance(state, held, RIG)
        stuck = step.pitch_deg == state.pitch_deg and ("i" in held or "k" in held)
        if stuck or not _may_go(rooms, state, step):
            left = 0
            continue
        state, left = step, left - 1
        poses.append(state.c2w)
        keys.append(held)
    return Walk(scene_index, tuple(keys), np.stack(poses), from_view, when, after)


def _may_go(rooms: tuple[Scene, ...], state: CameraState, step: CameraState) -> bool:
    """Whether a step keeps its distance in every world; coming nearer no further is allowed."""
    if np.allclose(step.c2w[:3, 3], state.c2w[:3, 3]):
        return True
    old, new = (s.c2w[[0, 2], 3] * METRES for s in (state, step))
    for room in rooms:
        there = clearance(room, new[0], new[1])
        if there < KEEP_AWAY and there <= clearance(room, old[0], old[1]):
            return False
    return True


def _draw_switch(scene_index: int, rng: np.random.Generator, latents: int) -> tuple[int, int]:
    """The latent frame of a change and the world after it."""
    if rng.uniform() >= SWITCH_SHARE:
        return NEVER, scene_index
    worlds = scenes()
    others = [i for i in range(len(worlds)) if i != scene_index]
    twins = [i for i in others if worlds[i].layout == worlds[scene_index].layout]
    choice = twins if twins and rng.uniform() < SAME_LAYOUT else others
    return int(rng.integers(2, latents - 2)), int(rng.choice(choice))


def frame_poses(walk: Walk) -> np.ndarray:
    """Poses of all pixel frames in metres, `[4(L-1)+1, 4, 4]`: constant motion inside a latent."""
    count = STRIDE * (len(walk.c2w) - 1) + 1
    poses = interpolate_poses(walk.c2w, count) if len(walk.c2w) > 1 else walk.c2w.copy()
    poses[:, :3, 3] *= METRES
    return poses


def render(walk: Walk, renderers: Sequence[Renderer]) -> np.ndarray:
    """The walk's pictures, uint8 `[4(L-1)+1, H, W, 3]`; one renderer per world."""
    return np.stack([
        renderers[walk.world(-(-i // STRIDE))].frame(pose)
        for i, pose in enumerate(frame_poses(walk))
    ])  # fmt: skip


def relative_poses(walk: Walk) -> np.ndarray:
    """What serving feeds the network: motion since the latent before over `RIG.move`, `[L, 4, 4]`.

    The first is the identity, as for a start picture.
    """
    rel = [np.eye(4)]
    rel += [relative_pose(a, b, RIG.move) for a, b in zip(walk.c2w[:-1], walk.c2w[1:], strict=True)]
    return np.stack(rel).astype(np.float32)


def walk_seed(split: str, index: int) -> int:
    """Seed of walk `index` of a split; splits never share seeds."""
    return zlib.crc32(split.encode()) * 1_000_003 + index
