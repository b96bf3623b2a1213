"""Presets by name, and what may be done with them.

A plain table; an unknown name is a `ConfigError` that lists the known ones.
"""

from __future__ import annotations

from worldline.core.errors import ConfigError
from worldline.models.preset import Preset
from worldline.models.presets import ALL

PRESETS: dict[str, Preset] = {preset.name: preset for preset in ALL}


def get_preset(name: str) -> Preset:
    """The preset called `name`; raises `ConfigError` listing the names when there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError("unknown preset", expected=" | ".join(PRESETS), got=name) from None


def preset_for_hub_id(hub_id: str) -> Preset | None:
    """The preset whose weights a hub repository holds, or None for a repository we do not know."""
    return next((preset for preset in ALL if hub_id in preset.hub_ids), None)


def require_live(preset: Preset) -> None:
    """Raise `ConfigError` for guided models, which make films but cannot be walked through."""
    if not preset.live:
        raise ConfigError(
            f"{preset.name} is guided and makes films only (worldline generate); "
            "no session can be started",
            expected="one of " + ", ".join(p.name for p in ALL if p.live),
        )
