"""A saved walk and the model it was made with, loaded again; what is other here is said first."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.cli.loading import load_world
from worldline.cli.options import ModelOptions
from worldline.cli.options_saved import SavedModel
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions, WorldInfo
from worldline.core.env import read_env
from worldline.core.errors import ConfigError, OtherWeightsError
from worldline.core.walk import WorldFile, engine_options, made_with, pixels_digest
from worldline.media.image import decode_image
from worldline.models.registry import PRESETS
from worldline.runtime.protocol import WorkerSettings

if TYPE_CHECKING:
    from worldline.runtime.engine import World

RANDOM = "random-"  # how the id of made-up weights begins
# What changes pictures; the rest is about time and memory, and for the device it was chosen for.
PICTURE_OPTIONS = ("kv", "decoder", "recache", "lossy")


class Saved(NamedTuple):
    """A file, its picture decoded (uint8 `H W 3`), a model for it, and what is other here."""

    file: WorldFile
    pixels: NDArray[np.uint8]
    world: World
    remarks: list[str]


def load_saved(file: WorldFile, options: SavedModel) -> Saved:
    """Load the model of a walk; tells on stderr what is other than it was.

    Raises: OtherWeightsError, ImageError, ConfigError, CheckpointError.
    """
    pixels = decode_image(file.start.picture)
    world = load_world(settings_of(file, options))
    remarks = check_made(file, world.info, pixels, force=options.force)
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr, flush=True)
    return Saved(file, pixels, world, remarks)


def load_for(file: WorldFile, options: ModelOptions) -> ModelOptions:
    """What to serve to walk on in a file: what made it, but for what somebody has asked for.

    A model that is asked for wins over the file's, and so do the other options. Raises: ConfigError
    for a file's model that is no preset, WorldFileError.
    """
    made, default = file.made, ModelOptions()
    if options.model == default.model:
        made_up = made.weights.startswith(RANDOM)
        options = replace(options, model=preset_of(file), random_weights=made_up)
    mode, dtype = (getattr(made, name) or None for name in ("mode", "dtype"))
    kept = engine_options(made)
    return replace(
        options,
        mode=options.mode or mode,
        dtype=options.dtype or dtype,
        threads=options.threads or made.threads,
        kv=options.kv if options.kv != default.kv else kept.kv,
        recache=options.recache or kept.recache,
        lossy=options.lossy or kept.lossy,
    )


def settings_of(file: WorldFile, options: SavedModel) -> WorkerSettings:
    """Load what the walk was made with, as far as this machine has it.

    Raises: WorldFileError, ConfigError.
    """
    made, env = file.made, read_env()
    device = options.device or env.device
    same_kind = device_kind(device) == device_kind(made.device)
    return WorkerSettings(
        model=options.model or preset_of(file),
        device=device,
        dtype=made.dtype,
        mode=made.mode,
        random_weights=made.weights.startswith(RANDOM),
        threads=made.threads,
        options=options_of(file, options.decoder, same_kind=same_kind),
    )


def preset_of(file: WorldFile) -> str:
    """The preset that a file names. Raises: ConfigError for any other name.

    A file comes from anybody: what it says leads to no folder, and to no repository of its choice.
    """
    model = file.made.model
    if model not in PRESETS:
        raise ConfigError(
            "the walk was made with a model that is no preset", expected="--model", got=model
        )
    return model


def options_of(file: WorldFile, decoder: str | None, *, same_kind: bool) -> EngineOptions:
    """The engine's options of a walk; on another kind of device only what changes pictures.

    Raises: ConfigError for a decoder of one's own that is not given.
    """
    recorded = engine_options(file.made)
    if decoder is None and recorded.decoder not in ("full", "tiny"):
        raise ConfigError(
            "the walk was made with a decoder of its own", expected=f"--decoder {recorded.decoder}"
        )
    if not same_kind:
        kept = {name: getattr(recorded, name) for name in PICTURE_OPTIONS}
        recorded = msgspec.structs.replace(DEFAULT_OPTIONS, **kept)
    return msgspec.structs.replace(recorded, decoder=decoder or recorded.decoder)


def device_kind(device: str) -> str:
    """`cpu` or `cuda`, whatever the number."""
    if device != "auto":
        return device.partition(":")[0]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_made(
    file: WorldFile, info: WorldInfo, pixels: NDArray[np.uint8], *, force: bool
) -> list[str]:
    """What is other here. Raises: OtherWeightsError, unless forced."""
    then, now = file.made, made_with(info)
    if then.weights != now.weights and not force:
        raise OtherWeightsError(
            f"the walk was made with other weights of {then.model}",
            expected=f"{then.weights} (--model takes their folder; --force replays all the same)",
            got=f"{now.weights} of {now.model}",
        )
    remarks = then.differences(now)
    if pixels_digest(pixels) != file.start.pixels:
        remarks.append("the start picture decodes to other pixels here")
    if then.mode != "exact":
        remarks.append(f"{then.mode} mode promises no bits")
    return remarks
