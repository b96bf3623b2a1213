"""Render walks into shard files: `python -m recipes.pocket.data --out DIR --first 0 --count 50`.

A shard `walks-<n>.npz` holds `WALKS` walks: frames uint8 `[n, F, H, W, 3]`, relative poses
`[n, L, 4, 4]`, scene indices `[n, L]`, whether each began at a start view, held keys, and what
names the scenes as drawn. Shards appear atomically (written aside, then renamed), so a reader or a
killed run never sees half of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.pocket.checkpoint import whole_or_not
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import scenes
from recipes.pocket.shards import scene_prints
from recipes.pocket.walks import make_walk, relative_poses, render, walk_seed

WALKS = 24
LATENTS = 17


def write_atomically(path: Path, **fields: np.ndarray) -> None:
    """Save an `.npz` so that it is either whole or not there."""
    with whole_or_not(path) as file:
        np.savez(file, **fields)  # pyright: ignore[reportArgumentType]


def make_shard(
    index: int,
    split: str,
    *,
    walks: int = WALKS,
    latents: int = LATENTS,
    switch: bool = False,
    begin: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """Render shard `index` of a split; the same numbers give the same bits.

    Walks begin in the worlds `begin` by turns, in all of them when that is empty.
    """
    worlds = scenes()
    begin = begin or range(len(worlds))
    renderers = [Renderer(scene) for scene in worlds]
    frames, rels, ids, starts, keys = [], [], [], [], []
    for i in range(walks):
        number = index * walks + i
        world = begin[number % len(begin)]
        walk = make_walk(world, walk_seed(split, number), latents, switch=switch)
        frames.append(render(walk, renderers))
        rels.append(relative_poses(walk))
        ids.append([walk.world(i) for i in range(latents)])
        starts.append(walk.from_view)
        keys.append(walk.keys)
    return {
        "frames": np.stack(frames),
        "rel": np.stack(rels),
        "scene": np.array(ids),
        "from_view": np.array(starts),
        "keys": np.array(keys),
        "scene_prints": np.array(scene_prints(worlds)),
    }


def main() -> None:
    """Write shards `first .. first + count`, skipping those that exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--latents", type=int, default=LATENTS)
    parser.add_argument("--still", action="store_true", help="no walk changes its world")
    parser.add_argument("--begin", type=int, nargs="*", default=[], help="worlds to begin in")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for index in range(args.first, args.first + args.count * args.step, args.step):
        path = args.out / f"walks-{index:04d}.npz"
        if not path.exists():
            shard = make_shard(
                index, args.split, latents=args.latents, switch=not args.still, begin=args.begin
            )
            write_atomically(path, **shard)
            print(path, flush=True)


if __name__ == "__main__":
    main()
