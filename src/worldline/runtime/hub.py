"""Find the folders that a `--model` value means, downloading from the hub where it must.

    a preset's name       its own weights, from the package or the hub
    a folder or file      what is in it
    owner/name            a hub repository
    PRESET=WHERE          the files at WHERE, with the numbers and licence of that preset

`huggingface_hub` belongs to the extra `models` and is imported only here, when it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from worldline.core.errors import CheckpointError, ConfigError, LayoutError
from worldline.models.preset import Preset
from worldline.models.registry import PRESETS, preset_for_hub_id

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
EXTRA_HINT = "pip install 'worldline[models]'"
PARTS = ("Wan2.1_VAE.pth", "models_t5*.pth", "google/umt5-xxl/*")
TRANSFORMER = ("*.safetensors", "*.json", "README.md")
EVERYTHING = (*TRANSFORMER, "*.pth", "*.model", "*.txt")


class Location(NamedTuple):
    """Where the files are, and the preset that was named (None: the files must tell)."""

    roots: tuple[Path, ...]
    preset: Preset | None


def locate(model: str) -> Location:
    """Resolve a `--model` value.

    Raises `ConfigError` when it is nothing we know, `LayoutError` for a path that does not exist,
    `CheckpointError` when the hub cannot be asked.
    """
    if model in PRESETS:
        return _locate_preset(PRESETS[model])
    path = Path(model).expanduser()
    if model.strip() and path.exists():
        return Location((path,), None)
    if model.startswith(("/", ".", "~")):
        raise LayoutError(f"there is no file or folder {model}")
    name, _, where = model.partition("=")
    if where and name in PRESETS:
        return Location(locate(where).roots, PRESETS[name])
    if HUB_ID.fullmatch(model):
        preset = preset_for_hub_id(model)
        if preset is not None and model == preset.hub_id:
            return _locate_preset(preset)
        return Location((download(model, EVERYTHING),), preset)
    raise ConfigError(
        "unknown model",
        expected="a preset (" + " | ".join(PRESETS) + "), a local folder, or a hub id owner/name",
        got=model,
    )


def packaged(family: str) -> Path:
    """The folder of the weights that ship inside the package."""
    return Path(__file__).resolve().parent.parent / "models" / family


def _locate_preset(preset: Preset) -> Location:
    if preset.hub_id is None:
        return Location((packaged(preset.family),), preset)
    if preset.parts_hub_id is None:
        return Location((download(preset.hub_id, EVERYTHING),), preset)
    transformer = download(preset.hub_id, TRANSFORMER)
    return Location((transformer, download(preset.parts_hub_id, PARTS)), preset)


def download(repo_id: str, patterns: Sequence[str]) -> Path:
    """Fetch a hub repository into the hub's own cache; raises `CheckpointError` saying why not."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f"{repo_id} is no local folder, and downloading needs an extra", expected=EXTRA_HINT
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=list(patterns)))
    # ValueError: a name the hub refuses. OSError covers its HTTP, offline and connection errors.
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"cannot get {repo_id} from the hub, and there is no local folder of that name",
            expected="a connection to the hub, or a local folder",
            got=reason[0][:200] if reason else type(error).__name__,
        ) from error
