"""`worldline models`: the presets."""

from __future__ import annotations

import msgspec

from worldline.cli.options import Models
from worldline.models.preset import Preset
from worldline.models.registry import PRESETS

HEAD = ("name", "size", "chunk/window/sink", "steps", "download", "licence")


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One preset in brief; sizes in pixels, `chunk`, `window`, `sink` in latent frames."""

    name: str
    title: str
    width: int
    height: int
    fps: int
    chunk: int | None
    window: int | None
    sink: int | None
    steps: int
    live: bool
    licence: str
    notice: str | None
    download_gb: float
    hub_id: str | None


def models(options: Models) -> int:
    """Run the command; returns the exit code."""
    rows = [describe(preset) for preset in PRESETS.values()]
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return 0
    lines = [HEAD, *map(in_columns, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    for notice in dict.fromkeys(row.notice for row in rows if row.notice):
        print(f"\n{notice}")
    return 0


def in_columns(row: ModelRow) -> tuple[str, ...]:
    """A row as the cells of the printed table."""
    return (
        row.name,
        f"{row.width}x{row.height}",
        f"{row.chunk}/{row.window}/{row.sink}",
        f"{row.steps}" if row.live else f"{row.steps}, films only",
        f"{row.download_gb:.0f} GB" if row.download_gb else "included",
        row.licence,
    )


def describe(preset: Preset) -> ModelRow:
    """A preset as one row."""
    return ModelRow(
        name=preset.name,
        title=preset.title,
        width=preset.width,
        height=preset.height,
        fps=preset.fps,
        chunk=preset.chunk,
        window=preset.window,
        sink=preset.sink,
        steps=len(preset.sampler.steps),
        live=preset.live,
        licence=preset.licence,
        notice=preset.notice,
        download_gb=round(preset.download_bytes / 1e9, 1),
        hub_id=preset.hub_id,
    )
