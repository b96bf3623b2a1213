"""The start pictures that ship with a model: where walks begin that nobody gave a picture for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import CheckpointError
from worldline.media.image import decode_image


class Start(NamedTuple):
    """Where a walk begins; `image` is uint8 `H W 3`."""

    image: NDArray[np.uint8]
    prompt: str
    seed: int


def read_gallery(folder: Path, count: int) -> list[Start]:
    """The first `count` start pictures of a gallery's folder, all of them if it has fewer.

    Raises: CheckpointError when there is no gallery.
    """
    try:
        entries = json.loads((folder / "gallery.json").read_bytes())[:count]
        pictures = [decode_image((folder / entry["file"]).read_bytes()) for entry in entries]
    except OSError as error:
        raise CheckpointError("the package has no gallery", got=error) from error
    return [
        Start(picture, entry["prompt"], entry["seed"])
        for picture, entry in zip(pictures, entries, strict=True)
    ]
