"""Saves the walk of a film as a world file, also one that was interrupted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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
        """Raises: WorldFileError where the picture or the path cannot be used, before any work.

        A file that is there stays until there is a chunk to replace it with.
        """
        start = start_of(world, session, picture=picture, pixels=pixels, prompt=prompt)
        start = msgspec.structs.replace(start, guided=guided)
        self._walked = Walked(start, made_with(world.info))
        self._path = path
        check_place(path, self._walked.encode())

    def __call__(self, controls: PoseControls | None, chunk: Chunk) -> None:
        """A chunk is finished, led by recorded poses or by nothing."""
        self.add(stepped_by(controls, chunk, frames=self._walked.start.chunk))

    def add(self, step: Stepped) -> None:
        """A chunk is finished."""
        self._walked.add(step)

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *exc: object) -> None:
        if len(self._walked):
            write_file(self._path, self._walked.encode())


def check_place(path: Path, data: bytes) -> None:
    """Raise `WorldFileError` where such a file cannot be written; touches none that is there."""
    if path.is_dir() or not path.name:
        raise WorldFileError("the world file cannot be written", expected="a file", got=path)
    with _beside(path, data) as part:
        part.unlink()


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: WorldFileError."""
    with _beside(path, data) as part:
        os.replace(part, path)


@contextlib.contextmanager
def _beside(path: Path, data: bytes) -> Iterator[Path]:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        yield part
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise WorldFileError("the world file cannot be written", got=error) from None
