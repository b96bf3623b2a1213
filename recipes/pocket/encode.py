"""Encode rendered walks: `python -m recipes.pocket.encode --data DIR --vae FILE --out DIR`.

Per walk: the latents of its 4-frame groups `[L, 16, h, w]` and, because a sequence may start from
any picture, the latents of the last frame of each group held still. float16, one file per shard.
The still latent of frame 0 stands for group 0 too. `grey.npz` holds the encode of mid-grey. Each
file names the encoder that made it; a folder holds latents of one encoder only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipes.pocket import checkpoint, shards
from recipes.pocket.data import write_atomically
from recipes.pocket.train_vae import fold_group, to_folded
from worldline.core.errors import ShapeError
from worldline.models.pocket.params import POCKET_VAE
from worldline.models.pocket.vae import FOLD, PocketVAE

BATCH = 34
WALKS: dict[str, shards.Shape] = {
    "frames": ("n", "F", "H", "W", 3), "rel": ("n", "L", 4, 4), "from_view": ("n",)
}  # fmt: skip


def load_vae(path: Path) -> PocketVAE:
    """The averaged weights of a training checkpoint."""
    vae = PocketVAE(POCKET_VAE)
    vae.load_state_dict(checkpoint.load(path)["ema"])
    vae.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return vae


@torch.inference_mode()
def encode_walk(vae: PocketVAE, walk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents of the groups and of the still pictures of one walk, each `[L, 16, h, w]`."""
    latents = (len(walk) - 1) // FOLD + 1
    groups = [fold_group(walk, i, still=False) for i in range(latents)]
    groups += [fold_group(walk, i, still=True) for i in range(latents)]
    x = to_folded(np.stack(groups))
    with torch.autocast("cpu", torch.bfloat16):
        z: Tensor = torch.cat([vae.encode_folded(part) for part in x.split(BATCH)])
    both = z.float().numpy().astype(np.float16)
    return both[:latents], both[latents:]


@torch.inference_mode()
def grey_latent(vae: PocketVAE, height: int, width: int) -> np.ndarray:
    """What `encode` gives for the mid-grey after a start picture, `[16, h, w]`."""
    video = torch.zeros(1, 3, 1 + FOLD, height, width)
    return vae.encode(video)[0, :, 1].float().numpy()


def encode_shard(vae: PocketVAE, source: Path, target: Path) -> None:
    """Encode one shard of walks into `target`. Raises `InputError` where it is broken."""
    shard = shards.read(source, WALKS, also=("scene", "keys", "scene_prints"))
    shards.check_scenes(source, shard.get("scene_prints"))
    frames = shard.pop("frames")
    if frames.shape[1] != FOLD * (shard["rel"].shape[1] - 1) + 1:
        expected = f"{FOLD * (shard['rel'].shape[1] - 1) + 1} for {shard['rel'].shape[1]} poses"
        raise ShapeError(f"frames per walk in {source}", expected=expected, got=frames.shape[1])
    pairs = [encode_walk(vae, walk) for walk in frames]
    latents, stills = (np.stack(part) for part in zip(*pairs, strict=True))
    name = np.array(shards.encoder_print(vae.state_dict()))
    write_atomically(target, latents=latents, stills=stills, encoder_print=name, **shard)


def write_grey(vae: PocketVAE, folder: Path) -> None:
    """Write `grey.npz`. Raises `CheckpointError` if `folder` has latents of another encoder."""
    path, name = folder / "grey.npz", shards.encoder_print(vae.state_dict())
    if path.exists() and any(folder.glob("walks-*.npz")):
        old = shards.read(path, {}, also=("encoder_print",)).get("encoder_print")
        shards.one_encoder({path: shards.text_of(old), Path("--vae"): name})
    write_atomically(path, grey=grey_latent(vae, 96, 160), encoder_print=np.array(name))


def main() -> None:
    """Encode every shard of `--data` that `--out` lacks; with `--follow` wait for more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--follow", type=float, default=0.0, help="seconds to wait for new shards")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    vae = load_vae(args.vae)
    if args.follow == 0:
        shards.find(args.data, "walks")
    write_grey(vae, args.out)
    idle = time.monotonic()
    while True:
        todo = [
            p for p in sorted(args.data.glob("walks-*.npz")) if not (args.out / p.name).exists()
        ]
        for path in todo:
            encode_shard(vae, path, args.out / path.name)
            print(path.name, flush=True)
            idle = time.monotonic()
        if time.monotonic() - idle > args.follow:
            return
        time.sleep(2)


if __name__ == "__main__":
    main()
