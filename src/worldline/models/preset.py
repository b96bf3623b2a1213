"""What a preset is, and how run-time overrides are resolved.

A preset carries every number of a published model. It is never changed: an override makes a new
`RuntimeParams`, so nothing that one session asked for can be seen by the next.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

from worldline.core.camera import DEFAULT_INTRINSICS, Intrinsics, Rig
from worldline.core.errors import ConfigError
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket.params import PocketTextParams, PocketVAEParams
from worldline.models.wan.params import UMT5Params, WanVAEParams

TRAIN_STEPS = 1000  # length of the noise schedule that step indices count in
GROWING = -1  # window of a session that keeps everything

Kind = Literal["dmd", "euler", "unipc"]
ScheduleName = Literal["official", "warped"]


class Sampler(msgspec.Struct, frozen=True, kw_only=True):
    """How a chunk is denoised.

    `steps` are indices into the 1000 noise levels, 0 = pure noise; `official` looks them up in the
    int-truncated table, `warped` shifts the timesteps `1000 - index`, and `euler` uses only how
    many there are. `unipc` is the guided offline sampler of the base models: `guidance` is the
    weight of classifier-free guidance, 1 = none; `boundary` the share of the schedule above which
    the high-noise expert works.
    """

    kind: Kind
    schedule: ScheduleName
    shift: float
    steps: tuple[int, ...]
    guidance: float = 1.0
    boundary: float | None = None


class RuntimeValues(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer (request, preset or checkpoint) says; None leaves it to the next layer.

    `chunk`, `window`, `sink` and `max_attention_frames` count latent frames; window -1 grows.
    `steps` is a number of steps or their indices.
    """

    chunk: int | None = None
    window: int | None = None
    sink: int | None = None
    shift: float | None = None
    steps: int | tuple[int, ...] | None = None
    max_attention_frames: int | None = None


class RuntimeParams(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved numbers of one session; see `RuntimeValues` for the units."""

    chunk: int
    window: int
    sink: int
    shift: float
    steps: tuple[int, ...]
    max_attention_frames: int | None = None


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A published model in numbers: architecture, run time, camera, sizes, licence, where it is.

    `width` x `height` is the default of `sizes`, in pixels; `fps` is the video's own rate.
    `chunk`, `window` and `sink` are None only for an unnamed checkpoint that states them itself.
    `experts` is 2 for the base models, which see all frames of a clip at once. `negative_prompt` is
    what guidance leads away from where no other is given. `notice` must be shown when weights of
    this preset load.
    `hub_id` has the DiT, `parts_hub_id` the VAE, text encoder and tokenizer where it has not;
    `hub_aliases` hold the same weights in another layout.
    `download_bytes` is the approximate size of all of that.
    """

    name: str
    title: str
    family: Literal["pocket", "lingbot"]
    dit: DiTParams
    vae: WanVAEParams | PocketVAEParams
    text: UMT5Params | PocketTextParams
    width: int
    height: int
    sizes: tuple[tuple[int, int], ...]
    fps: int
    chunk: int | None
    window: int | None
    sink: int | None
    sampler: Sampler
    rig: Rig
    licence: str
    download_bytes: int
    negative_prompt: str = ""
    max_attention_frames: int | None = None
    intrinsics: Intrinsics = DEFAULT_INTRINSICS
    experts: int = 1
    notice: str | None = None
    hub_id: str | None = None
    parts_hub_id: str | None = None
    hub_aliases: tuple[str, ...] = ()

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """Every hub repository that holds this preset's transformer."""
        return (*([self.hub_id] if self.hub_id else []), *self.hub_aliases)

    @property
    def live(self) -> bool:
        """Whether chunks can be generated one after the other, without guidance."""
        return self.sampler.kind != "unipc"

    @property
    def bidirectional(self) -> bool:
        """Whether every frame of a clip sees every other; else only those before it."""
        return self.experts > 1

    @property
    def runtime(self) -> RuntimeValues:
        """This preset as one layer of `resolve_runtime`."""
        return RuntimeValues(
            chunk=self.chunk,
            window=self.window,
            sink=self.sink,
            shift=self.sampler.shift,
            steps=self.sampler.steps,
            max_attention_frames=self.max_attention_frames,
        )


def resolve_runtime(
    preset: Preset,
    checkpoint: RuntimeValues | None = None,
    request: RuntimeValues | None = None,
) -> RuntimeParams:
    """Merge the layers into new values: request before preset before checkpoint.

    Raises `ConfigError` for a value that nobody states, or for values that cannot work together:
    a window that is not -1 must hold the sink and the chunk.
    """
    layers = [layer for layer in (request, preset.runtime, checkpoint) if layer is not None]
    merged = {field: _first(layers, field) for field in RuntimeValues.__struct_fields__}
    unstated = [name for name, value in merged.items() if value is None]
    if set(unstated) - {"max_attention_frames"}:
        raise ConfigError(f"{preset.name} and its checkpoint leave {', '.join(unstated)} open")
    steps = merged["steps"]
    if isinstance(steps, int):
        merged["steps"] = _spread(steps, preset)
    try:
        return _check(msgspec.convert(merged, RuntimeParams))
    except msgspec.ValidationError as error:
        raise ConfigError(f"unusable setting: {error}") from error


def _first(layers: list[RuntimeValues], field: str) -> object:
    """The value of the first layer that states it."""
    return next((v for v in (getattr(layer, field) for layer in layers) if v is not None), None)


def _spread(count: int, preset: Preset) -> tuple[int, ...]:
    """Indices of `count` steps: the preset's own where it has as many, else evenly spread."""
    if count == len(preset.sampler.steps):
        return preset.sampler.steps
    return tuple(TRAIN_STEPS * i // count for i in range(count)) if count > 0 else ()


def _check(params: RuntimeParams) -> RuntimeParams:
    """Refuse what cannot work; returns its argument."""
    chunk, window, sink = params.chunk, params.window, params.sink
    if chunk < 1:
        raise ConfigError("chunk is too small", expected="at least 1 latent frame", got=chunk)
    if sink < 0:
        raise ConfigError("sink is negative", expected="0 or more latent frames", got=sink)
    if window != GROWING and window < sink + chunk:
        raise ConfigError(
            "the window cannot hold sink and chunk",
            expected=f"at least {sink + chunk} latent frames, or -1 to keep everything",
            got=window,
        )
    limit = params.max_attention_frames
    if limit is not None and limit < chunk:
        raise ConfigError(
            "max_attention_frames is smaller than a chunk", expected=f"at least {chunk}", got=limit
        )
    if not 0 < params.shift < float("inf"):
        raise ConfigError("shift cannot be used", expected="a positive number", got=params.shift)
    steps = params.steps
    rising = all(a < b for a, b in pairwise(steps))
    if not steps or not rising or steps[0] < 0 or steps[-1] >= TRAIN_STEPS:
        raise ConfigError(
            "steps cannot be used",
            expected=f"rising indices from 0 to {TRAIN_STEPS - 1}",
            got=steps if len(steps) <= 8 else f"{len(steps)} from {steps[0]} to {steps[-1]}",
        )
    return params
