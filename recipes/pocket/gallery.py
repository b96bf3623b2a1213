"""The start pictures of the page: the views of the worlds that the packed weights know.

`python -m recipes.pocket.gallery` writes `gallery.json` and three files per view into the package:
the PNG that is sent to the model, at exactly its size, and two JPEGs that are only looked at, one
for the whole screen and one for its tile. Files of views that are gone are removed. A world is
known when the weights' own word list has its words; `--all` writes every world of the recipe.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import Scene, StartView, scenes
from recipes.pocket.walks import METRES, view_state
from worldline.models.pocket import params as pocket_params
from worldline.models.pocket.params import POCKET_TEXT
from worldline.models.tensor_files import read_header

PACKAGED = Path(pocket_params.__file__).with_name("pocket.safetensors")
GALLERY = PACKAGED.with_name("gallery")
LIMIT = 1_500_000  # bytes of the whole folder: it ships in the wheel
PREVIEW = (8, 84)  # 1280 x 768, JPEG quality: fills the start screen, about 35 kB
TILE = (2, 88)  # 320 x 192: sharp on a dense display, about 5 kB
ENDINGS = ("*.png", "*.jpg")

Entry = dict[str, str | int]


def picture(scene: Scene, view: StartView, *, scale: int = 1) -> np.ndarray:
    """The view as `[96 scale, 160 scale, 3]` uint8."""
    pose = view_state(view).c2w.copy()
    pose[:3, 3] *= METRES
    return Renderer(scene, 160 * scale, 96 * scale).frame(pose)


def slug(name: str) -> str:
    """A file name for a view's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def packed_words() -> frozenset[str]:
    """The words that the packaged weights have a row for."""
    config = json.loads(read_header(PACKAGED).metadata["config"])
    return frozenset(config["text"]["words"])


def knows(words: AbstractSet[str], scene: Scene) -> bool:
    """Whether weights with these words were made for a world: they lack none of its own.

    Small words (`a`, `with`) have no row in any weights and do not count.
    """
    texts = [text for choices in scene.words.values() for text in choices]
    texts += [view.prompt for view in scene.starts]
    own = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    return own & set(POCKET_TEXT.words) <= words


def known_scenes() -> tuple[Scene, ...]:
    """The worlds that the packaged weights know, in the recipe's order."""
    words = packed_words()
    return tuple(scene for scene in scenes() if knows(words, scene))


def in_order(worlds: Sequence[Scene]) -> Iterator[tuple[Scene, StartView]]:
    """All views, first one of every world, then the second ones: neighbours look different."""
    for row in zip_longest(*(scene.starts for scene in worlds)):
        yield from ((s, v) for s, v in zip(worlds, row, strict=True) if v is not None)


def entry(scene: Scene, view: StartView) -> Entry:
    """What the page reads; worlds of one layout differ in light and colours only."""
    name = slug(view.name)
    return {
        "name": view.name,
        "file": f"{name}.png",
        "preview": f"{name}.jpg",
        "tile": f"{name}-tile.jpg",
        "prompt": view.prompt,
        "seed": view.seed,
        "world": scene.name,
        "layout": scene.layout,
    }


def write(folder: Path, worlds: Sequence[Scene]) -> list[Entry]:
    """Write all files of `worlds` into `folder`; returns the entries of `gallery.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    views = list(in_order(worlds))
    entries = [entry(scene, view) for scene, view in views]
    for (scene, view), files in zip(views, entries, strict=True):
        Image.fromarray(picture(scene, view)).save(folder / str(files["file"]), optimize=True)
        for key, (scale, quality) in (("preview", PREVIEW), ("tile", TILE)):
            large = Image.fromarray(picture(scene, view, scale=scale))
            large.save(folder / str(files[key]), quality=quality, optimize=True)
    kept = {files[key] for files in entries for key in ("file", "preview", "tile")}
    for old in (path for ending in ENDINGS for path in folder.glob(ending)):
        if old.name not in kept:
            old.unlink()
    (folder / "gallery.json").write_text(json.dumps(entries, indent=2) + "\n")
    return entries


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="worlds that the weights do not know too"
    )
    worlds = scenes() if parser.parse_args().all else known_scenes()
    entries = write(GALLERY, worlds)
    size = sum(path.stat().st_size for path in GALLERY.iterdir())
    assert size <= LIMIT, f"{size} bytes are too many for the package's {LIMIT}"
    for one in entries:
        print(one["file"], one["world"])
    print(f"{len(entries)} start worlds, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
