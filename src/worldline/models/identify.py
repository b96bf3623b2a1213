"""Which preset a checkpoint is, judged by its files: layout, architecture, model card, metadata.

A folder whose architecture is a published one becomes that preset. Anything else is `custom`: the
nearest preset's numbers, with the architecture and the chunk, window and sink that the files state.
A preset that was named keeps its name, numbers and licence whatever the architecture.
"""

from __future__ import annotations

import msgspec

from worldline.core.errors import LayoutError
from worldline.models.layouts import Layout, stated_frames
from worldline.models.lingbot.params import ACTION_CHANNELS, DiTParams
from worldline.models.preset import Preset
from worldline.models.presets import (
    BASE_ACT,
    BASE_CAM,
    DIT_1_3B,
    FAST,
    NON_COMMERCIAL,
    V2_1_3B,
    V2_14B,
    V2_14B_PRETRAIN,
    V2_NOTICE,
)
from worldline.models.registry import get_preset

PRETRAINED = "transformer_causal"
UNSTATED_LICENCE = "unstated"
UNSTATED_NOTICE = (
    "These files do not say under which licence they are. LingBot-World v1 weights are Apache-2.0, "
    "v2 weights are CC BY-NC-SA 4.0 (no commercial use); name the preset to settle it: "
    "--model PRESET=FOLDER."
)


def identify(layout: Layout, dit: DiTParams, named: Preset | None) -> Preset:
    """The preset of a checkpoint, always with `dit` as its architecture.

    Raises `ConfigError` when a worldline file names a preset we do not have, `LayoutError` when the
    files are of another kind than the preset that was named.
    """
    if named is not None:
        _check_kind(layout, named)
    preset = named if named is not None else _nearest(layout, dit)
    preset = msgspec.structs.replace(preset, experts=len(layout.dit))
    if dit == preset.dit:
        return preset
    if named is not None:
        return msgspec.structs.replace(preset, dit=dit)
    open_fields = dict.fromkeys(stated_frames(layout))
    return msgspec.structs.replace(
        preset, name="custom", title=f"custom ({layout.name})", dit=dit, **open_fields
    )


def _check_kind(layout: Layout, named: Preset) -> None:
    """One network where the preset has one, two experts where it has two, our file for pocket."""
    kinds = {1: "one causal transformer", 2: "a high-noise and a low-noise expert"}
    if len(layout.dit) != named.experts:
        raise LayoutError(
            f"the files do not hold {named.name}",
            expected=kinds[named.experts],
            got=kinds[len(layout.dit)],
        )
    if named.family == "pocket" and layout.name != "worldline":
        raise LayoutError(
            f"the files do not hold {named.name}", expected="a worldline file", got=layout.name
        )


def _nearest(layout: Layout, dit: DiTParams) -> Preset:
    """The preset that a layout stands for, under the licence that its files state."""
    if layout.name == "worldline":
        return get_preset(layout.metadata.get("preset", "pocket"))
    first, *others = layout.dit
    if others:
        return _licensed(BASE_ACT if dit.control_dim == ACTION_CHANNELS else BASE_CAM, layout)
    if first.folder.name == PRETRAINED:
        return V2_14B_PRETRAIN
    if layout.name == "original-v2":
        return V2_14B
    if dit.dim == DIT_1_3B.dim or (layout.name == "root-shards" and not first.config):
        return V2_1_3B
    if layout.name == "diffusers" and layout.licence is None:
        return msgspec.structs.replace(FAST, licence=UNSTATED_LICENCE, notice=UNSTATED_NOTICE)
    if layout.licence is not None and "nc" in layout.licence.split("-"):
        return V2_14B
    return FAST


def _licensed(preset: Preset, layout: Layout) -> Preset:
    """`preset`, non-commercial where the files' own card says so."""
    if layout.licence is not None and "nc" in layout.licence.split("-"):
        return msgspec.structs.replace(preset, licence=NON_COMMERCIAL, notice=V2_NOTICE)
    return preset
