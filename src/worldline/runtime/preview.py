"""Find and load the tiny preview decoder that `--decoder` asks for.

It is a file of its own, published apart from the models: in the model's folder, or named. Nothing
is downloaded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from worldline.core.errors import CheckpointError, ConfigError
from worldline.models.preset import Preset
from worldline.models.presets import TAEW2_1
from worldline.models.tensor_files import WeightFiles
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.tiny import FILE_NAMES, TinyDecoder, decoder_only
from worldline.runtime.fill import Source, compare_keys, fill_from, fill_random
from worldline.runtime.parts import on_meta
from worldline.runtime.placement import Placement

FULL, TINY = "full", "tiny"
LABEL = "preview decoder"
WHERE = "https://github.com/madebyollin/taehv (MIT)"


def load_preview(
    decoder: str, preset: Preset, roots: Sequence[Path], placement: Placement
) -> TinyDecoder | None:
    """The preview decoder for `--decoder`: None for `full`.

    Raises `ConfigError` for a model whose latents are not Wan 2.1's or a file that is not there,
    the `CheckpointError` family for a file that does not hold it.
    """
    if decoder == FULL:
        return None
    _require_wan(preset)
    path = _search(roots) if decoder == TINY else Path(decoder).expanduser()
    if not path.is_file():
        raise ConfigError(
            "unknown decoder", expected="full, tiny, or the file of a tiny decoder", got=decoder
        )
    source = Source(WeightFiles(files=(path,)), rename=decoder_only)
    module = on_meta(TinyDecoder, TAEW2_1)
    compare_keys([(LABEL, module, source)], layout=FILE_NAMES[0])
    spot = placement.prepare(module)
    fill_from(module, source, device=spot.device, dtype_of=spot.dtype_of, store=spot.store)
    return _settle(module)


def random_preview(
    decoder: str, preset: Preset, placement: Placement, *, seed: int
) -> TinyDecoder | None:
    """The same with random weights: no file is looked for."""
    if decoder == FULL:
        return None
    _require_wan(preset)
    module = on_meta(TinyDecoder, TAEW2_1)
    spot = placement.prepare(module)
    fill_random(module, device=spot.device, dtype_of=spot.dtype_of, seed=seed, label=LABEL)
    return _settle(module)


def _require_wan(preset: Preset) -> None:
    if not isinstance(preset.vae, WanVAEParams):
        raise ConfigError(
            f"{preset.name} has no preview decoder: its own is small", expected="--decoder full"
        )


def _search(roots: Sequence[Path]) -> Path:
    folders = [root if root.is_dir() else root.parent for root in roots]
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise CheckpointError(
        f"no {LABEL} beside the model's files",
        expected=f"{' or '.join(FILE_NAMES)} from {WHERE}, in {folders[0]} or named by --decoder",
    )


def _settle(module: TinyDecoder) -> TinyDecoder:
    """Lay the weights out as 2-D convolutions run fastest, on both kinds of device."""
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
