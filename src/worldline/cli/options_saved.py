"""The options of what is done with saved walks, as `options`; the docstrings are the help texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from worldline.cli.options import Seconds, Text


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """What to load for a walk, where it is not as the file says."""

    model: Text = None
    """What to load instead of the preset that the file names: a folder, or a hub repository."""
    decoder: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """The file of the small decoder, where the walk was made with one of one's own."""
    device: Text = None
    """auto, cpu, cuda or cuda:N; default: auto, or WORLDLINE_DEVICE."""
    force: bool = False
    """Go on with other weights than the walk was made with."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Make a saved walk again, and compare it chunk by chunk with what was recorded."""

    world: Annotated[Positional[Path], arg(metavar="WORLD.wl")]
    """A world file, from generate --save, the page or a server."""
    out: Annotated[str | None, arg(metavar="FILE|DIR", help_behavior_hint="")] = None
    """Also write the film: an .mp4 (needs the extra "video"), or a folder for pictures."""
    json: bool = False
    """Print the result as JSON."""
    saved: SavedModel = SavedModel()


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a stretch of a saved walk: a film with its camera path, or a folder to train on."""

    world: Annotated[Positional[Path], arg(metavar="WORLD.wl")]
    """A world file, from generate --save, the page or a server."""
    out: Annotated[Path, arg(metavar="DIR")]
    """A new folder: world.mp4 (needs the extra "video"), poses, intrinsics, transforms.json."""
    from_: Annotated[float, arg(name="from", metavar="SECONDS")] = 0.0
    """Where the stretch begins, in seconds of the walk."""
    to: Seconds = None
    """Where it ends; default: at the end of the walk."""
    dataset: bool = False
    """Single pictures, actions and meta.json instead of a film."""
    json: bool = False
    """Print the result as JSON."""
    saved: SavedModel = SavedModel()
