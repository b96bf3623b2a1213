"""Find out how a checkpoint is laid out by looking at its files, never at its path's name.

    layout        where the DiT is                              the rest
    worldline     tensors named dit.* vae.* text.* in one set   the same files; tokenizer/
    diffusers     transformer/ or transformer_causal/           vae/ text_encoder/ tokenizer/
    original-v1   high_noise_model/ + low_noise_model/,         Wan2.1_VAE.pth, models_t5*.pth,
                  lingbot_world_fast/                           google/umt5-xxl/
    original-v2   transformers/, config.json above it           as original-v1
    root-shards   shards and index in the folder itself         as original-v1, or as diffusers

The parts around the DiT are looked for by their own names in every layout, and in several folders
when a release is spread over several downloads. Torch-free: only names and headers are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from worldline.core.errors import LayoutError
from worldline.models.tensor_files import (
    WeightFiles,
    listed,
    read_header,
    tensor_table,
    weight_files,
)

LayoutName = Literal["worldline", "diffusers", "original-v1", "original-v2", "root-shards"]
Networks = Literal["causal", "experts"]

EXPERTS = ("high_noise_model", "low_noise_model")
V1_CAUSAL = "lingbot_world_fast"
V2_CAUSAL = "transformers"
DIFFUSERS_CAUSAL = ("transformer", "transformer_causal")
TOKENIZERS = ("google/umt5-xxl", "tokenizer")
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
TRANSFORMER_NAMES = frozenset(("patch_embedding.weight", "blocks.0.self_attn.q.weight"))
PARTS = ("dit.", "vae.", "text.")

_HELP = (
    "a folder with transformer/ (diffusers), high_noise_model/ and low_noise_model/ or "
    "lingbot_world_fast/ (original v1), transformers/ (original v2), shards and their index, "
    "or one worldline file"
)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's files by part; what is None is not there.

    `dit` holds one network, or the base models' two: high noise, then low noise. `licence` is what
    the release's own model card says, `metadata` the free metadata of a worldline file.
    """

    name: LayoutName
    dit: tuple[WeightFiles, ...]
    vae: WeightFiles | None = None
    text: WeightFiles | None = None
    tokenizer: Path | None = None
    licence: str | None = None
    metadata: dict[str, str] = {}


def find_layout(roots: Sequence[Path], *, prefer: Networks = "causal") -> Layout:
    """Find the checkpoint in `roots`, folders searched in order (or one worldline file).

    `prefer` decides where a v1 folder holds both the causal network and the two experts.
    Raises `LayoutError` naming what was looked for, `CheckpointError` for broken files.
    """
    for root in roots:
        if not root.exists():
            raise LayoutError(f"there is no file or folder {root}")
    folders = [root for root in roots if root.is_dir()]
    for root in roots:
        found = _find_dit(root, prefer) if root.is_dir() else None
        if found is not None:
            name, dit = found
            return _with_parts(Layout(name=name, dit=dit, licence=card_licence(root)), folders)
        own = _own_layout(root)
        if own is not None:
            return own
    content = listed(sorted(path.name for root in roots for path in _entries(root)))
    raise LayoutError("no known checkpoint layout", expected=_HELP, got=content or "nothing")


def _with_parts(layout: Layout, folders: Sequence[Path]) -> Layout:
    """Add the parts around the DiT, each from the first folder that has it."""
    return msgspec.structs.replace(
        layout,
        vae=_find_part(folders, "vae", "*VAE*.pth"),
        text=_find_part(folders, "text_encoder", "models_t5*.pth"),
        tokenizer=_find_tokenizer(folders),
    )


def _entries(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else [root]


def _find_dit(folder: Path, prefer: Networks) -> tuple[LayoutName, tuple[WeightFiles, ...]] | None:
    """The DiT in `folder` and the layout it implies, or None."""
    v1 = _find_v1(folder, prefer)
    if v1 is not None:
        return "original-v1", v1
    for name in DIFFUSERS_CAUSAL:
        found = weight_files(folder / name)
        if found is not None:
            return "diffusers", (found,)
    if (folder / "model_index.json").is_file():
        raise LayoutError(
            "the diffusers folder holds no transformer",
            expected="weights in transformer/ or transformer_causal/",
        )
    own_config = folder / V2_CAUSAL / "config.json"
    config = own_config if own_config.is_file() else folder / "config.json"
    v2 = weight_files(folder / V2_CAUSAL, config=config)
    if v2 is not None:
        return "original-v2", (v2,)
    root = weight_files(folder)
    if root is not None and not TRANSFORMER_NAMES.isdisjoint(tensor_table(root)):
        return "root-shards", (root,)
    return None


def _find_v1(folder: Path, prefer: Networks) -> tuple[WeightFiles, ...] | None:
    """The causal network or the two experts of an original v1 folder."""
    causal = weight_files(folder / V1_CAUSAL)
    experts = [weight_files(folder / name) for name in EXPERTS]
    if causal is not None and (prefer == "causal" or not any(experts)):
        return (causal,)
    if not any(experts):
        return None
    present = tuple(files for files in experts if files is not None)
    if len(present) != len(EXPERTS):
        absent = [name for name, files in zip(EXPERTS, experts, strict=True) if files is None]
        raise LayoutError(
            "a base model has two experts",
            expected="both " + " and ".join(EXPERTS),
            got=absent[0] + " is missing",
        )
    return present


def _find_part(folders: Sequence[Path], name: str, pattern: str) -> WeightFiles | None:
    """The VAE or text encoder: a diffusers sub-folder or an original `.pth` file."""
    for folder in folders:
        pickles = sorted(folder.glob(pattern))
        if pickles:
            return WeightFiles(files=(pickles[0],))
        found = weight_files(folder / name)
        if found is not None:
            return found
    return None


def _find_tokenizer(folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        for name in TOKENIZERS:
            if any((folder / name / file).is_file() for file in TOKENIZER_FILES):
                return folder / name
    return None


def _own_layout(root: Path) -> Layout | None:
    """Our own layout: every tensor is named dit.*, vae.* or text.*."""
    if root.is_file():
        found = WeightFiles(files=(root,)) if root.suffix == ".safetensors" else None
    else:
        found = weight_files(root)
    if found is None:
        return None
    names = tensor_table(found)
    if not names or not all(name.startswith(PARTS) for name in names):
        return None
    parts = {prefix: _part_of(found, names, prefix) for prefix in PARTS}
    dit = parts["dit."]
    if dit is None:
        raise LayoutError(f"{found.files[0].name} holds no transformer", expected="tensors dit.*")
    return Layout(
        name="worldline",
        dit=(dit,),
        vae=parts["vae."],
        text=parts["text."],
        tokenizer=_find_tokenizer([found.folder]),
        metadata=read_header(found.files[0]).metadata,
    )


def _part_of(found: WeightFiles, names: Iterable[str], prefix: str) -> WeightFiles | None:
    """The tensors of one part, or None where there are none."""
    present = any(name.startswith(prefix) for name in names)
    return msgspec.structs.replace(found, prefix=prefix) if present else None


def card_licence(folder: Path) -> str | None:
    """The `license` field in the front matter of the release's model card, lower case."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card.read_text("utf-8", "replace"), re.DOTALL)
    field = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if front else None
    return field[1].strip("'\"").lower() if field else None


def stated_frames(layout: Layout) -> dict[str, int]:
    """Chunk, window and sink in latent frames where the checkpoint's config states them.

    Only converted releases do; the original config leaves them to the command line.
    """
    config = layout.dit[0].config
    names = {
        "chunk": ("num_frames_per_block",),
        "window": ("sliding_window_num_frames", "local_attn_size"),
        "sink": ("sink_size",),
    }
    stated: dict[str, int] = {}
    for field, keys in names.items():
        values = [config[key] for key in keys if isinstance(config.get(key), int)]
        if values:
            stated[field] = int(values[0])
    return stated
