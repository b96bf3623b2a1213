"""What a session may ask for when it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worldline.core.camera import Intrinsics
from worldline.core.motion import Rig
from worldline.models.preset import RuntimeValues
from worldline.runtime.noise import NoiseSource


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What a session may ask for; None leaves it to the preset. Sizes in pixels.

    `intrinsics` are those of an 832x480 picture, `rig` is the camera's full speed. `stretch` fits
    the picture as the official code does (no crop, no filter), `noise` replaces the seeded source;
    both serve parity runs. With `keep_latents` the session can be decoded once more, see
    `Session.recording`. Without `sharded` every rank of a group computes all of the session; `film`
    is for `runtime.films`, whose guided models cannot be stepped.
    """

    width: int | None = None
    height: int | None = None
    chunk: int | None = None
    window: int | None = None
    sink: int | None = None
    shift: float | None = None
    steps: int | Sequence[int] | None = None
    intrinsics: Intrinsics | None = None
    rig: Rig | None = None
    stretch: bool = False
    noise: NoiseSource | None = None
    keep_latents: bool = False
    sharded: bool = True
    film: bool = False

    @property
    def runtime(self) -> RuntimeValues:
        """The run-time layer of this request."""
        steps = self.steps
        return RuntimeValues(
            chunk=self.chunk,
            window=self.window,
            sink=self.sink,
            shift=self.shift,
            steps=steps if steps is None or isinstance(steps, int) else tuple(steps),
        )
