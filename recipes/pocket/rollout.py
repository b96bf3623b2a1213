"""Let the model itself walk the training walks: `python -m recipes.pocket.rollout --help`.

Writes, beside each shard of encoded walks, the latents that the averaged model makes of it from
the start picture alone. `train_dit --rolled` then uses them as the past of half its sequences, with
the true latents as target: what self-rollout does, at the price of rolling out once per stage.
With `--forced` each latent frame is made from the true past: what `tune_decoder` learns from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from recipes.pocket import checkpoint
from recipes.pocket.data import write_atomically
from recipes.pocket.scenes import caption, scenes
from recipes.pocket.sequences import cameras, condition, read_grey, read_walks
from recipes.pocket.shards import find, one_encoder
from recipes.pocket.streaming import SHIPPED, Sampler, generate
from recipes.pocket.world_model import WorldModel


def roll_shard(
    model: WorldModel,
    source: Path,
    grey: np.ndarray,
    *,
    times: Sampler = SHIPPED,
    forced: bool = False,
) -> np.ndarray:
    """The model's own latents of one shard's walks, float16 `[n, L, 16, h, w]`."""
    rng = np.random.default_rng(len(source.name))
    walks, _ = read_walks(source)
    x0 = torch.from_numpy(np.stack([walk.latents for walk in walks]).astype(np.float32))
    x0 = x0.transpose(1, 2)  # n 16 L h w
    worlds = np.stack([walk.worlds for walk in walks])  # n L
    camera = cameras(np.stack([walk.rel for walk in walks]), x0)
    y = condition(x0, torch.ones(len(x0), dtype=torch.bool), grey)
    prompts = [caption(scenes()[i], rng) for i in worlds[:, 0]]
    rows, later = model.text.rows(prompts), {}
    for i in range(1, x0.shape[2]):
        for n in np.flatnonzero(worlds[:, i] != worlds[:, i - 1]):
            prompts[n] = caption(scenes()[worlds[n, i]], rng)
            later[i] = model.text.rows(prompts)
    seed = int(source.stem.split("-")[-1])
    truth = x0 if forced else None
    made = generate(model, rows, y, camera, times=times, seed=seed, later=later, truth=truth)
    return made.transpose(1, 2).numpy().astype(np.float16)


def main() -> None:
    """Command line; shards that are there already are skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dit", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--forced", action="store_true", help="every frame from the true past")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    state, model = checkpoint.load(args.dit), WorldModel().eval()
    model.load_state_dict(state["ema"])
    grey, encoder = read_grey(args.data)
    if encoder and state.get("encoder_print"):
        one_encoder({args.data: encoder, args.dit: state["encoder_print"]})
    named = {} if encoder is None else {"encoder_print": np.array(encoder)}
    paths = find(args.data, "encoded walks")
    for path in paths[args.first : args.first + args.count * args.step : args.step]:
        target = args.out / path.name
        if not target.exists():
            rolled = roll_shard(model, path, grey, forced=args.forced)
            write_atomically(target, rolled=rolled, forced=np.array(args.forced), **named)
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
