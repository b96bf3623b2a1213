"""Walks from film with poses: `python -m recipes.pocket.own --clips CLIPS --out DATA/walks`.

Reads `CLIPS/WORLD/CLIP/` with `poses.npy` and either `video.mp4` or pictures in the order of their
names; `WORLD` is the name of a world in `scenes.py`, whose words become the captions. Poses are
camera-to-world `[N, 4, 4]`, OpenCV axes, one per picture, in any unit of length. Pictures are cut
to the shape of the model's and resized; everything is brought to 16 per second and cut into walks
of `LATENTS` latent frames. Writes the same shards as `recipes.pocket.data`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from recipes.pocket.data import LATENTS, WALKS, write_atomically
from recipes.pocket.scenes import scenes
from recipes.pocket.walks import RIG, STRIDE
from worldline.core.camera import check_poses, interpolate_poses, relative_pose
from worldline.core.errors import InputError

FPS = 16
SIZE = (160, 96)  # pixels: those of the packaged model
FULL_SPEED = 95  # the step that so many per cent of all steps stay below counts as full speed


class Clip(NamedTuple):
    """One film of a world: pictures `[F, H, W, 3]` uint8 and poses `[F, 4, 4]` at `FPS`."""

    world: int
    frames: np.ndarray
    c2w: np.ndarray


def fit(picture: Image.Image, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The middle of a picture in the shape of `size`, resized to it: `[H, W, 3]` uint8."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = size[0] / scale, size[1] / scale
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, left + width, top + height)
    small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, box=box)
    return np.asarray(small)


def pictures(folder: Path) -> Iterator[Image.Image]:
    """The pictures of one clip in order. Raises `InputError` when there are none."""
    film = folder / "video.mp4"
    if film.exists():
        import av  # the extra `video`; folders of pictures do without

        with av.open(film) as container:
            for frame in container.decode(video=0):
                yield frame.to_image()
        return
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not paths:
        raise InputError(f"no pictures in {folder}", expected="video.mp4 or *.png", got="none")
    for path in paths:
        with Image.open(path) as picture:
            yield picture


def read_clip(folder: Path, world: int, fps: float) -> Clip:
    """One clip at `FPS`. Raises `InputError` or `ControlError` where files do not fit."""
    frames = np.stack([fit(picture) for picture in pictures(folder)])
    poses = check_poses(np.load(folder / "poses.npy"))
    if len(poses) != len(frames):
        expected = f"{len(frames)} poses, one per picture"
        raise InputError(f"{folder / 'poses.npy'}", expected=expected, got=len(poses))
    count = int((len(frames) - 1) * FPS / fps) + 1
    at = np.linspace(0, (count - 1) * fps / FPS, count)
    last = int(np.ceil(at[-1]))
    fine = interpolate_poses(poses[: last + 1], 64 * last + 1)  # 64 poses between two pictures
    return Clip(world, frames[np.rint(at).astype(int)], fine[np.rint(64 * at).astype(int)])


def read_clips(folder: Path, fps: float) -> list[Clip]:
    """All clips of a folder. Raises `InputError` for a world that `scenes.py` does not name."""
    numbers = {scene.name: i for i, scene in enumerate(scenes())}
    clips: list[Clip] = []
    for world in sorted(p for p in folder.iterdir() if p.is_dir()):
        if world.name not in numbers:
            expected = f"one of {', '.join(numbers)}"
            raise InputError(f"{world} is no world of scenes.py", expected=expected, got=world.name)
        clips += [read_clip(clip, numbers[world.name], fps) for clip in sorted(world.iterdir())]
    if not clips:
        raise InputError(f"no clips in {folder}", expected="WORLD/CLIP folders", got="none")
    return clips


def full_speed(clips: list[Clip]) -> float:
    """The length that becomes 1, in the clips' unit per latent frame: brisk, not the longest."""
    places = [clip.c2w[::STRIDE, :3, 3] for clip in clips]
    steps = np.concatenate([np.linalg.norm(np.diff(p, axis=0), axis=-1) for p in places])
    moving = steps[steps > 1e-3 * steps.max(initial=0.0)]
    if len(moving) == 0:
        raise InputError("nothing moves in these clips", expected="a walk", got="one place")
    return float(np.percentile(moving, FULL_SPEED))


def walks(clips: list[Clip], speed: float, latents: int) -> Iterator[dict[str, np.ndarray]]:
    """Stretches of `latents` latent frames, as the fields of a shard for one walk."""
    length = STRIDE * (latents - 1)
    for clip in clips:
        for first in range(0, len(clip.frames) - length, length):
            poses = clip.c2w[first : first + length + 1 : STRIDE]
            rel = [np.eye(4), *(relative_pose(a, b, speed) for a, b in pairwise(poses))]
            yield {
                "frames": clip.frames[first : first + length + 1],
                "rel": np.stack(rel).astype(np.float32),
                "scene": np.full(latents, clip.world),
                "from_view": np.array(False),
            }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fps", type=float, default=float(FPS), help="of the clips")
    parser.add_argument("--latents", type=int, default=LATENTS)
    parser.add_argument("--walks", type=int, default=WALKS, help="per shard")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    clips = read_clips(args.clips, args.fps)
    speed = full_speed(clips)
    print(f"full speed: {speed:.4g} per latent frame, which W becomes ({RIG.move} in the product)")
    found = list(walks(clips, speed, args.latents))
    order = np.random.default_rng(0).permutation(len(found))  # every shard has a bit of all
    for n in range(len(found) // args.walks):
        part = [found[i] for i in order[n * args.walks : (n + 1) * args.walks]]
        path = args.out / f"walks-{n:04d}.npz"
        write_atomically(path, **{key: np.stack([w[key] for w in part]) for key in part[0]})
        print(path, flush=True)
    print(f"{len(found)} walks, {len(found) % args.walks} of them too few for one more shard")


if __name__ == "__main__":
    main()
