"""Pack training checkpoints into the package's weights file, and read such files for judging.

`python -m recipes.pocket.export --vae vae.pt --dit dit.pt --commit HASH` writes bf16 safetensors
with keys `dit.*`, `vae.*`, `text.*` and metadata: preset, the parts' numbers as JSON, the recipe's
commit, steps of each stage and data seed. The averaged (EMA) weights are shipped. An autoencoder
and a world model that was trained on another one's latents are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from recipes.pocket import checkpoint
from recipes.pocket.shards import encoder_print, one_encoder
from recipes.pocket.world_model import POCKET_DIT, WorldModel
from worldline.core.errors import CheckpointError
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket import params as pocket_params
from worldline.models.pocket.params import PocketTextParams, PocketVAEParams
from worldline.models.pocket.vae import PocketVAE

LIMIT = 15_000_000  # bytes of one file in the package
PACKAGED = Path(pocket_params.__file__).with_name("pocket.safetensors")


def collect(vae: dict[str, Tensor], model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the file from the EMA state dicts of `PocketVAE` and `WorldModel`."""
    tensors = {f"vae.{name}": t for name, t in vae.items()}
    tensors |= model  # its keys already begin with dit. and text.
    return {name: t.to(torch.bfloat16).contiguous().clone() for name, t in tensors.items()}


def config_json(dit: DiTParams, vae: PocketVAEParams, text: PocketTextParams) -> str:
    """The numbers of all parts, as the loader reads them from the metadata."""
    parts = {"dit": dit, "vae": vae, "text": text}
    return json.dumps({name: msgspec.to_builtins(part) for name, part in parts.items()})


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Save the file, whole or not at all. Raises `CheckpointError` if it would be too large."""
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size >= LIMIT:
        expected = f"less than {LIMIT} bytes"
        raise CheckpointError("the weights do not fit the package", expected=expected, got=size)
    with checkpoint.whole_or_not(path) as file:
        file.write(save(tensors, metadata=metadata))


def load_pocket(
    weights: Path | None, training: Sequence[Path] | None
) -> tuple[PocketVAE, WorldModel]:
    """Networks from a weights file (default: the package's) or from (vae.pt, dit.pt)."""
    if training:
        vae_file, dit_file = (checkpoint.load(path) for path in training)
        same_encoder(vae_file, dit_file)
        vae_state, state = vae_file["ema"], dit_file["ema"]
        config = {
            "dit": POCKET_DIT,
            "vae": pocket_params.POCKET_VAE,
            "text": pocket_params.POCKET_TEXT,
        }
    else:
        with safe_open(weights or PACKAGED, "pt") as file:
            raw = json.loads(file.metadata()["config"])
            every = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        types = {"dit": DiTParams, "vae": PocketVAEParams, "text": PocketTextParams}
        config = {name: msgspec.convert(raw[name], kind) for name, kind in types.items()}
        vae_state = {n[4:]: t for n, t in every.items() if n.startswith("vae.")}
        state = {n: t for n, t in every.items() if not n.startswith("vae.")}
    vae, model = PocketVAE(config["vae"]), WorldModel(config["dit"], config["text"])
    vae.load_state_dict(vae_state)
    model.load_state_dict(state)
    vae.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return vae, model.eval()


def same_encoder(vae: dict[str, Any], dit: dict[str, Any]) -> None:
    """Raise `CheckpointError` when the world model was trained on another encoder's latents."""
    if dit.get("encoder_print"):
        made_by = encoder_print(vae["ema"])
        one_encoder({Path("dit.pt"): dit["encoder_print"], Path("vae.pt"): made_by})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--dit", type=Path, required=True)
    parser.add_argument("--commit", required=True, help="commit of the recipe that was run")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    args = parser.parse_args()
    vae, dit = checkpoint.load(args.vae), checkpoint.load(args.dit)
    same_encoder(vae, dit)
    metadata = {
        "preset": "pocket",
        "config": config_json(POCKET_DIT, pocket_params.POCKET_VAE, pocket_params.POCKET_TEXT),
        "recipe_commit": args.commit,
        "vae_steps": str(vae["step"]),
        "decoder_steps": str(vae.get("tuned", 0)),
        "dit_steps": str(dit["step"]),
        "distill_steps": str(dit.get("distilled", 0)),
        "data_seed": "train",
        "licence": "Apache-2.0",
    }
    write(args.out, collect(vae["ema"], dit["ema"]), metadata)
    print(args.out, args.out.stat().st_size)


if __name__ == "__main__":
    main()
