"""A saved walk as motions a live camera can make: what is followed when one walks into a file.

Motions and letters come back as they were. Recorded poses are followed as the rig can: what is too
fast for it lags behind, see `core.trajectory`. A replay is exact for all of them and needs no tape.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from worldline.core.motion import Motion, Rig, from_actions
from worldline.core.rotation import multiply
from worldline.core.trajectory import motions_along
from worldline.core.walk import Poses, WorldFile, relative_and_keys


def tape(file: WorldFile) -> Iterator[tuple[Motion, ...]]:
    """The motions of each chunk. Raises `ControlError` for poses that are no path."""
    for chunk in file.chunks():
        if chunk.motions is not None:
            yield chunk.motions
        elif chunk.actions is not None:
            yield tuple(from_actions(held) for held in chunk.actions)
        else:
            assert chunk.poses is not None, "controls of one kind"
            yield _followed(chunk.poses, file.start.rig)


def _followed(rows: Poses, rig: Rig) -> tuple[Motion, ...]:
    """One motion per row of framewise relative poses; a translation of 1 is full speed."""
    relative = relative_and_keys(rows)[0].astype(np.float64)
    relative[:, :3, 3] *= rig.move
    path = [np.eye(4)]  # n+1 4 4
    for step in relative:
        path.append(multiply(path[-1], step))
    return motions_along(np.stack(path), rate=1, latent_s=1, rig=rig)
