"""What a session may ask for when it begins, and what follows from that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from worldline.core.camera import Intrinsics
from worldline.core.lora import Outfit
from worldline.core.motion import Rig
from worldline.models.preset import Preset, RuntimeParams, RuntimeValues
from worldline.runtime.noise import NoiseSource
from worldline.sampling.schedules import (
    TRAIN_STEPS,
    Schedule,
    euler_schedule,
    official_schedule,
    warped_schedule,
)


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What a session may ask for; None leaves it to the preset. Sizes in pixels.

    `intrinsics` are those of an 832x480 picture, `rig` is the camera's full speed. `stretch` fits
    the picture as the official code does (no crop, no filter), `noise` replaces the seeded source;
    both serve parity runs. With `keep_latents` the session can be decoded once more, see
    `Session.recording`. Without `sharded` every rank of a group computes all of the session; `film`
    is for `runtime.films`, whose guided models cannot be stepped. `loras` are names of loaded
    adapters with their scales, None those that the world was loaded with.
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
    loras: Outfit | None = None

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


def nearest_size(sizes: Sequence[tuple[int, int]], width: int, height: int) -> tuple[int, int]:
    """The size whose aspect ratio is nearest to a picture's; earlier ones win a tie."""
    ratio = math.log(width / height)
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - ratio))


def make_schedule(preset: Preset, settings: RuntimeParams) -> Schedule:
    """The step table of a session."""
    if preset.sampler.kind == "euler":
        return euler_schedule(settings.shift, len(settings.steps))
    if preset.sampler.schedule == "warped":
        return warped_schedule(settings.shift, [TRAIN_STEPS - i for i in settings.steps])
    return official_schedule(settings.shift, settings.steps)
