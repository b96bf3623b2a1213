"""Saves the walk of a film as a world file, also one that was interrupted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Chunk
from worldline.core.errors import WorldFileError
from worldline.core.walk import Guided, Stepped, made_with
from worldline.core.walked import Walked
from worldline.runtime.conditions import PoseControls
from worldline.runtime.replaying import start_of, stepped_by

if TYPE_CHECKING:
    from worldline.runtime.engine import World
    from worldline.runtime.session import Session


class Saving:
    """Collects chunks; leaving the context writes the file, also after an error or Ctrl-C."""

    def __init__(
        self,
        path: Path,
        world: World,
        session: Session,
        *,
        picture: bytes,
        pixels: NDArray[np.uint8],
        prompt: str,
        guided: Guided | None = None,
    ) -> None:
        """Raises: WorldFileError where the picture or the path cannot be used, before any work."""
        start = start_of(world, session, picture=picture, pixels=pixels, prompt=prompt)
        start = msgspec.structs.replace(start, guided=guided)
        self._walked = Walked(start, made_with(world.info))
        self._path = path
        self._write()

    def __call__(self, controls: PoseControls | None, chunk: Chunk) -> None:
        """A chunk is finished, led by recorded poses or by nothing."""
        self.add(stepped_by(controls, chunk, frames=self._walked.start.chunk))

    def add(self, step: Stepped) -> None:
        """A chunk is finished."""
        self._walked.add(step)

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *exc: object) -> None:
        self._write()

    def _write(self) -> None:
        write_file(self._path, self._walked.encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: WorldFileError."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise WorldFileError("the world file cannot be written", got=error) from None
