"""From a checkpoint's layout to its networks: which class, which numbers, which tensors.

Modules are built on the meta device; nothing is read but headers. What a family calls its parts is
decided here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from worldline.core.errors import CheckpointError, KeysError
from worldline.models.architecture import dit_params, umt5_params, vae_params
from worldline.models.identify import identify
from worldline.models.layouts import Layout
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket.params import PocketTextParams, PocketVAEParams
from worldline.models.pocket.text import PocketText
from worldline.models.pocket.vae import PocketVAE
from worldline.models.preset import Preset
from worldline.models.presets import BASE_HUB_ID, FAST
from worldline.models.registry import PRESETS
from worldline.models.tensor_files import WeightFiles
from worldline.models.wan.convert import umt5_key_from_hf, vae_key_from_diffusers
from worldline.models.wan.params import UMT5Params, WanVAEParams
from worldline.models.wan.text import UMT5Encoder
from worldline.models.wan.vae import WanVAE
from worldline.runtime.fill import Rename, Source, compare_keys

Params = TypeVar("Params")
Module = TypeVar("Module")
Numbers = TypeVar("Numbers")
Stated = dict[str, dict[str, Any]]
Vae = WanVAE | PocketVAE
TextNetwork = UMT5Encoder | PocketText


class Networks(NamedTuple):
    """The networks of one model: `dits` holds one, or a base model's two experts."""

    dits: tuple[LingBotDiT, ...]
    vae: Vae
    text: TextNetwork

    def labelled(self) -> list[tuple[str, nn.Module]]:
        """Every network with the name to show while it loads."""
        names = (
            ["transformer"] if len(self.dits) == 1 else ["high-noise expert", "low-noise expert"]
        )
        dits = list(zip(names, self.dits, strict=True))
        return [*dits, ("autoencoder", self.vae), ("text encoder", self.text)]


class Plan(NamedTuple):
    """Networks on the meta device, and for each its source, in the order of `labelled`."""

    preset: Preset
    networks: Networks
    sources: tuple[Source, ...]

    def pairs(self) -> list[tuple[str, nn.Module, Source]]:
        """Label, network and source of every part."""
        labelled = zip(self.networks.labelled(), self.sources, strict=True)
        return [(label, module, source) for (label, module), source in labelled]


def build_networks(preset: Preset) -> Networks:
    """The preset's networks on the meta device: no memory, no values."""
    return Networks(
        dits=tuple(on_meta(LingBotDiT, preset.dit) for _ in range(preset.experts)),
        vae=on_meta(_vae_class(preset.vae), preset.vae),
        text=on_meta(_text_class(preset.text), preset.text),
    )


def make_plan(layout: Layout, named: Preset | None) -> Plan:
    """Read the architecture off the files, find or adapt the preset, and compare all keys.

    Raises `CheckpointError` for parts that are not there, `KeysError` for tensors that do not fit.
    """
    config = _own_config(layout)
    dits = [Source(files, rename=lambda name: name) for files in layout.dit]
    preset = identify(layout, _dit_params(dits[0], layout, config, named), named)
    _require_parts(layout, preset)
    assert layout.vae is not None and layout.text is not None, "checked just before"
    vae = Source(layout.vae, rename=_vae_names(layout.vae))
    text = Source(layout.text, rename=umt5_key_from_hf if preset.family == "lingbot" else _same)
    preset = msgspec.structs.replace(
        preset,
        vae=_vae_params(vae, preset, config),
        text=_text_params(text, preset, config),
    )
    plan = Plan(preset, build_networks(preset), (*dits, vae, text))
    compare_keys(plan.pairs(), layout=layout.name)
    _check_widths(preset)
    return plan


def on_meta(build: Callable[[Params], Module], params: Params) -> Module:
    """A network on the meta device: no memory, no values."""
    with torch.device("meta"), _WithoutValues():
        return build(params)


class _WithoutValues(TorchFunctionMode):
    """Leaves out `nn.init`: on the meta device it fills nothing and imports torch's compiler."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def _vae_class(params: WanVAEParams | PocketVAEParams) -> Callable[[Any], Vae]:
    return WanVAE if isinstance(params, WanVAEParams) else PocketVAE


def _text_class(params: UMT5Params | PocketTextParams) -> Callable[[Any], TextNetwork]:
    return UMT5Encoder if isinstance(params, UMT5Params) else PocketText


def _same(name: str) -> str:
    return name


def _vae_names(files: WeightFiles) -> Rename:
    """Diffusers' names to the original ones; original and own names pass through unchanged."""
    blocks = files.config.get("num_res_blocks")
    blocks = blocks if isinstance(blocks, int) else 2
    if files.pickled or files.prefix:
        return _same
    return lambda name: vae_key_from_diffusers(name, num_res_blocks=blocks)


def _own_config(layout: Layout) -> Stated:
    """The numbers of each part (`dit`, `vae`, `text`) that a worldline file's metadata states."""
    text = layout.metadata.get("config", "{}")
    try:
        return msgspec.convert(json.loads(text), Stated)
    except ValueError as error:  # JSON and msgspec errors
        raise CheckpointError(
            f"{layout.dit[0].files[0].name} has an unusable config in its metadata",
            expected="a JSON object with dit, vae and text",
            got=str(error),
        ) from error


def _dit_params(source: Source, layout: Layout, config: Stated, named: Preset | None) -> DiTParams:
    stated = {**layout.dit[0].config, **config.get("dit", {})}
    preset = named or PRESETS.get(layout.metadata.get("preset", ""), FAST)
    with _readable(layout.dit[0]):
        return dit_params(source.shapes, stated, like=preset.dit)


def _vae_params(source: Source, preset: Preset, config: Stated) -> WanVAEParams | PocketVAEParams:
    if isinstance(preset.vae, PocketVAEParams):
        return _stated(config.get("vae"), preset.vae)
    stated = {**source.weights.config, **config.get("vae", {})}
    with _readable(source.weights):
        return vae_params(source.shapes, stated, like=preset.vae)


def _text_params(source: Source, preset: Preset, config: Stated) -> UMT5Params | PocketTextParams:
    if isinstance(preset.text, PocketTextParams):
        return _stated(config.get("text"), preset.text)
    stated = {**source.weights.config, **config.get("text", {})}
    with _readable(source.weights):
        return umt5_params(source.shapes, stated, like=preset.text)


@contextmanager
def _readable(files: WeightFiles) -> Generator[None]:
    """Turn what a config of the wrong types makes Python say into a `CheckpointError`."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"the config of {files.folder.name} states unusable numbers", got=error
        ) from error


def _stated(values: dict[str, Any] | None, otherwise: Numbers) -> Numbers:
    """The numbers a file states, of the same kind as the preset's."""
    if values is None:
        return otherwise
    try:
        return msgspec.convert(values, type(otherwise))
    except msgspec.ValidationError as error:
        raise CheckpointError(f"the weights file states unusable numbers: {error}") from error


def _check_widths(preset: Preset) -> None:
    """Raise `KeysError` when parts of different models were laid together."""
    text = preset.text.dim if isinstance(preset.text, UMT5Params) else preset.text.text_dim
    latent = (
        preset.vae.z_dim if isinstance(preset.vae, WanVAEParams) else preset.vae.latent_channels
    )
    pairs = (
        ("text encoder", preset.dit.text_dim, text),
        ("autoencoder", preset.dit.out_dim, latent),
    )
    for part, wanted, width in pairs:
        if wanted != width:
            raise KeysError(
                f"the {part} belongs to another model",
                expected=f"width {wanted}, which the transformer takes",
                got=width,
            )


def _require_parts(layout: Layout, preset: Preset) -> None:
    """Raise one `CheckpointError` that says which files to add around the transformer."""
    original = layout.name in ("original-v1", "original-v2", "root-shards")
    text = "models_t5_umt5-xxl-enc-bf16.pth" if original else "text_encoder/"
    wanted: list[tuple[object, str, str]] = [
        (layout.vae, "autoencoder", "Wan2.1_VAE.pth" if original else "vae/"),
        (layout.text, "text encoder", text),
    ]
    if preset.family == "lingbot":
        folder = "google/umt5-xxl/" if original else "tokenizer/"
        wanted.append((layout.tokenizer, "tokenizer", folder))
    absent = [(what, name) for part, what, name in wanted if part is None]
    if not absent:
        return
    folder = layout.dit[0].folder
    beside = folder if layout.name in ("root-shards", "worldline") else folder.parent
    raise CheckpointError(
        f"the checkpoint (layout {layout.name}) has a transformer but no "
        + ", ".join(what for what, _ in absent),
        expected=f"{', '.join(name for _, name in absent)} in {beside}; all LingBot-World releases "
        f"have the same ones, for example {BASE_HUB_ID}",
    )
