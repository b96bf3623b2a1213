"""Judge a pocket checkpoint: `python -m recipes.pocket.evaluate --out DIR [--weights FILE]`.

Held-out walks (seeds apart from training) in the known worlds: reconstruction, next latent from
the true past against copying, free-running walks, commands told apart, edges and colours over
time, and a contact sheet. PSNR after the first second rewards emptiness, so look at the sheet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.pocket import measures
from recipes.pocket.encode import encode_walk, grey_latent
from recipes.pocket.export import load_pocket
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import scenes
from recipes.pocket.sequences import cameras, condition
from recipes.pocket.streaming import SHIPPED, Sampler, euler_times, generate
from recipes.pocket.walks import RIG, Walk, make_walk, relative_poses, render, view_state, walk_seed
from recipes.pocket.world_model import WorldModel
from worldline.core.camera import advance
from worldline.models.pocket.vae import PocketVAE

COMMANDS = ("w", "s", "a", "d", "j", "l", "i", "")
PIXELS = 160, 96
SHOWN = (0, 1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 60, 80)


class Judged(NamedTuple):
    """Walks with their truth: frames uint8 `[n, F, H, W, 3]`, latents and what the model sees."""

    walks: list[Walk]
    frames: np.ndarray
    x0: Tensor  # n 16 T h w
    y: Tensor
    camera: Tensor
    rows: Tensor


def prepare(vae: PocketVAE, model: WorldModel, walks: list[Walk]) -> Judged:
    """Render and encode walks of equal length."""
    renderers = [Renderer(scene) for scene in scenes()]
    frames = np.stack([render(walk, renderers) for walk in walks])
    x0 = torch.from_numpy(np.stack([encode_walk(vae, f)[0] for f in frames])).float()
    x0 = x0.transpose(1, 2)  # n 16 T h w
    image = torch.ones(len(walks), dtype=torch.bool)
    y = condition(x0, image, grey_latent(vae, PIXELS[1], PIXELS[0]))
    camera = cameras(np.stack([relative_poses(walk) for walk in walks]), x0)
    prompts = [scenes()[walk.scene].starts[0].prompt for walk in walks]
    return Judged(walks, frames, x0, y, camera, model.text.rows(prompts))


@torch.inference_mode()
def decode(vae: PocketVAE, latents: Tensor) -> np.ndarray:
    """Pictures uint8 `[n, F, H, W, 3]` of whole clips of latents."""
    video = torch.cat([vae.decode(z[None]) for z in latents.float()])
    return ((video.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def command_walk(scene: int, view: int, keys: str, latents: int) -> Walk:
    """One command held from a start view."""
    state = view_state(scenes()[scene].starts[view])
    poses = [state.c2w]
    for _ in range(latents - 1):
        state = advance(state, keys, RIG)
        poses.append(state.c2w)
    return Walk(scene, ("", *[keys] * (latents - 1)), np.stack(poses), from_view=True)


def judge_commands(
    vae: PocketVAE, model: WorldModel, times: Sampler, *, renoise: bool
) -> dict[str, object]:
    """Hold each command for 1.25 s from every start view: is the true render of it the nearest?"""
    hits, margins = [], {key: [] for key in COMMANDS}
    for scene, world in enumerate(scenes()):
        for view in range(len(world.starts)):
            walks = [command_walk(scene, view, key, 6) for key in COMMANDS]
            judged = prepare(vae, model, walks)
            made = generate(
                model, judged.rows, judged.y, judged.camera, times=times, renoise=renoise
            )
            last = decode(vae, made)[:, -4:]
            table = measures.psnr(last[:, None], judged.frames[None, :, -4:]).mean(-1)  # made true
            for i, key in enumerate(COMMANDS):
                others = np.delete(table[i], i)
                hits.append(table[i, i] > others.max())
                margins[key].append(float(table[i, i] - others.max()))
    return {
        "share": float(np.mean(hits)),
        "of": len(hits),
        "margin_db": {key or "none": round(float(np.mean(m)), 2) for key, m in margins.items()},
    }


def judge_walks(
    vae: PocketVAE, model: WorldModel, judged: Judged, times: Sampler, *, renoise: bool
) -> tuple[dict[str, object], np.ndarray]:
    """Free-running and teacher-forced figures, and the free-running pictures."""
    inputs = judged.rows, judged.y, judged.camera
    free = decode(vae, generate(model, *inputs, times=times, renoise=renoise))
    forced = generate(model, *inputs, times=times, renoise=renoise, truth=judged.x0)
    error = (forced - judged.x0).square().mean(dim=(0, 1, 3, 4))
    truth = judged.frames
    # standing still is free for both, and copying it is perfect: it would drown the rest
    moving = np.array([[bool(keys) for keys in walk.keys[1:]] for walk in judged.walks])
    forced_db = next_latent_psnr(vae, judged, forced)[moving].mean()
    copy = measures.psnr(truth[:, :-4:4, None], blocks(truth)).mean(-1)[moving].mean()
    bands = {"1-4": slice(1, 17), "5-12": slice(17, 49), "13-": slice(49, None)}
    ratio = {
        name: {
            key: round(float(f(free[:, part]).mean() / f(truth[:, part]).mean()), 3)
            for key, part in bands.items() if free[:, part].size
        }
        for name, f in (("edges", measures.edge_energy), ("columns", measures.column_band))
    }  # fmt: skip
    by_latent = measures.psnr(free, truth).mean(0)
    colour, latents = measures.colour_error(free, truth), judged.x0.shape[2]
    figures: dict[str, object] = {
        "next_latent_db": round(float(forced_db), 2),
        "copy_db": round(float(copy), 2),
        "x0_error": round(float(error[1:].mean()), 4),
        "first_second_db": round(float(by_latent[1:17].mean()), 2),
        "by_latent_db": {i: round(float(by_latent[4 * i]), 1) for i in SHOWN if i < latents},
        "colour_error_end": round(float(colour[:, -1].mean()), 3),
        **ratio,
    }  # fmt: skip
    return figures, free


def blocks(frames: np.ndarray) -> np.ndarray:
    """Frames after the first, grouped by latent frame: `[n, T-1, 4, H, W, 3]`."""
    return frames[:, 1:].reshape(len(frames), -1, 4, *frames.shape[2:])


@torch.inference_mode()
def next_latent_psnr(vae: PocketVAE, judged: Judged, forced: Tensor) -> np.ndarray:
    """PSNR `[n, T-1]` of each predicted latent frame decoded after the true ones before it."""
    truth = blocks(judged.frames)
    total = np.zeros(truth.shape[:2])
    for n in range(len(forced)):
        _, state = vae.decode_stream(judged.x0[n : n + 1, :, :1], None)
        for i in range(1, forced.shape[2]):
            guess, _ = vae.decode_stream(forced[n : n + 1, :, i : i + 1], state)
            _, state = vae.decode_stream(judged.x0[n : n + 1, :, i : i + 1], state)
            picture = ((guess[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
            total[n, i - 1] = measures.psnr(picture, truth[n, i - 1]).mean()
    return total


def contact_sheet(judged: Judged, free: np.ndarray, path: Path, columns: tuple[int, ...]) -> None:
    """Truth above result for each walk, at the latent frames named in `columns`."""
    rows = []
    for n in range(len(free)):
        for frames in (judged.frames[n], free[n]):
            rows.append(
                np.concatenate([frames[min(4 * c, len(frames) - 1)] for c in columns], axis=1)
            )
        rows.append(np.full((4, rows[-1].shape[1], 3), 255, np.uint8))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    """Command line: prints the figures as JSON and leaves them with the sheet in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="a safetensors file; default: the package's")
    parser.add_argument(
        "--training", type=Path, nargs=2, help="vae.pt and dit.pt of a running training"
    )
    parser.add_argument("--walks", type=int, default=9)
    parser.add_argument("--latents", type=int, default=25)
    parser.add_argument("--steps", type=int, help="even Euler steps; default: the preset's own")
    parser.add_argument("--renoise", action="store_true")
    parser.add_argument("--quick", action="store_true", help="no command test")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    vae, model = load_pocket(args.weights, args.training)
    count = len(scenes())
    walks = [make_walk(i % count, walk_seed("test", i), args.latents) for i in range(args.walks)]
    judged = prepare(vae, model, walks)
    times = euler_times(args.steps) if args.steps else SHIPPED
    figures, free = judge_walks(vae, model, judged, times, renoise=args.renoise)
    rebuilt = decode(vae, judged.x0)
    figures["reconstruction_db"] = round(float(measures.psnr(rebuilt, judged.frames).mean()), 2)
    if not args.quick:
        figures["commands"] = judge_commands(vae, model, times, renoise=args.renoise)
    columns = tuple(c for c in SHOWN if c < args.latents)
    contact_sheet(judged, free, args.out / "sheet.png", columns)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
