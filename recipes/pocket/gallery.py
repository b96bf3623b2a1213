"""The start pictures of the page: every start view of the pocket worlds, as the training shows it.

`python -m recipes.pocket.gallery` writes `gallery.json` and two files per view into the package:
the PNG that is sent to the model, at exactly its size, and a larger JPEG that is only looked at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import Scene, StartView, scenes
from recipes.pocket.walks import METRES, view_state
from worldline.models.pocket import params as pocket_params

GALLERY = Path(pocket_params.__file__).with_name("gallery")
PREVIEW_SCALE = 5  # 800 x 480: sharp on the start screen, a few dozen kB
PREVIEW_QUALITY = 88


def picture(scene: Scene, view: StartView, *, scale: int = 1) -> np.ndarray:
    """The view as `[96 scale, 160 scale, 3]` uint8."""
    pose = view_state(view).c2w.copy()
    pose[:3, 3] *= METRES
    return Renderer(scene, 160 * scale, 96 * scale).frame(pose)


def slug(name: str) -> str:
    """A file name for a view's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(folder: Path) -> list[dict[str, str | int]]:
    """Write all files into `folder`; returns the entries of `gallery.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, str | int]] = []
    for scene in scenes():
        for view in scene.starts:
            name = slug(view.name)
            Image.fromarray(picture(scene, view)).save(folder / f"{name}.png", optimize=True)
            large = Image.fromarray(picture(scene, view, scale=PREVIEW_SCALE))
            large.save(folder / f"{name}.jpg", quality=PREVIEW_QUALITY, optimize=True)
            files = {"file": f"{name}.png", "preview": f"{name}.jpg"}
            entries.append({"name": view.name, **files, "prompt": view.prompt, "seed": view.seed})
    (folder / "gallery.json").write_text(json.dumps(entries, indent=2) + "\n")
    return entries


def main() -> None:
    """Command line."""
    for entry in write(GALLERY):
        print(entry["file"], entry["name"])


if __name__ == "__main__":
    main()
