"""From a film as it is asked for to the numbers it is made with: length, path, sampler, noise.

Everything is checked here, before the first pass and before memory is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.core.camera import Intrinsics
from worldline.core.errors import ConfigError, ControlError
from worldline.core.film import MAX_LATENT_FRAMES, FilmRequest, film_frames
from worldline.models.preset import (
    TRAIN_STEPS,
    Preset,
    RuntimeParams,
    RuntimeValues,
    resolve_runtime,
)
from worldline.models.wan.tiny import PreviewVae
from worldline.ops.vae import StreamingVae
from worldline.runtime.films_branches import Branches
from worldline.runtime.films_sides import NO_GUIDANCE, Negative, check_pass
from worldline.runtime.noise import NoiseSource
from worldline.runtime.parallel.vae import whole_vae
from worldline.runtime.passes import LATENT_CHANNELS
from worldline.runtime.session import Session
from worldline.runtime.shared import Engine
from worldline.runtime.state import SessionState
from worldline.runtime.transfer import upload
from worldline.sampling.solvers import FewSteps, Memory, Solver, multistep

if TYPE_CHECKING:
    from worldline.runtime.engine import World

MAX_GUIDANCE = 100.0
OPTIONS_OF_FILMS = ("kernels", "kv", "lossy")  # those of the engine's that show in a film
PIXELS_PER_TOKEN = 256


class Frames(NamedTuple):
    """Numbers of a film in latent frames. `causal`: chunks with a memory; else clips, which begin
    with the last picture of the one before, so that one latent frame of each is no new one.
    """

    chunk: int
    chunks: int
    causal: bool

    @property
    def overlap(self) -> int:
        """Latent frames that a chunk shares with the one before."""
        return 0 if self.causal else 1

    @property
    def total(self) -> int:
        """Latent frames of the film."""
        return film_frames(self.chunk, self.chunks, overlap=self.overlap)

    @property
    def pictures(self) -> int:
        """Pixel frames of the film."""
        return 4 * (self.total - 1) + 1

    def first(self, chunk: int) -> int:
        """Latent frame of the film with which a chunk begins."""
        return chunk * (self.chunk - self.overlap)

    def seen(self, chunk: int) -> range:
        """Latent frames of a chunk as the network counts them."""
        start = self.first(chunk) if self.causal else 0
        return range(start, start + self.chunk)


class Path(NamedTuple):
    """Relative poses `[T, 4, 4]` and walk keys `[T, 4]` of every latent frame of the film."""

    relative: NDArray[np.float32]
    keys: NDArray[np.float32] | None


class Numbers(NamedTuple):
    """What a request comes to: its length, its path, the weight of guidance."""

    frames: Frames
    path: Path
    scale: float


class Setup(NamedTuple):
    """All that a film is made with. `session` is the prompt's side and holds the decoder too."""

    session: Session
    frames: Frames
    path: Path
    vae: StreamingVae
    branches: Branches
    way: str  # how the branches run
    solver: Callable[[int], Solver]
    boundary: float | None  # timestep from which on the first expert is asked
    negative: Negative | None

    @property
    def steps(self) -> int:
        """Denoise passes of a chunk."""
        return len(self.session.state.settings.steps)

    def expert(self, timestep: float) -> int:
        """Which network is asked at a timestep: 0 above the boundary, 1 below it."""
        return int(self.boundary is not None and timestep < self.boundary)

    def close(self) -> None:
        """Give back everything."""
        self.branches.close()
        if self.negative is not None:
            self.negative.close()
        self.session.close()


def numbers_of(world: World, request: FilmRequest) -> Numbers:
    """The numbers of a film. Raises `ConfigError`, `ControlError`, `CapacityError`."""
    settings = resolve_runtime(world.preset, world.components.checkpoint, values_of(request))
    if request.width is not None and request.height is not None:
        # Before the picture is brought to that size.
        cells = max(request.width, 0) * max(request.height, 0) // PIXELS_PER_TOKEN
        check_pass(world.shared, settings.chunk * cells)
    frames = frames_of(world.preset, settings, request.chunks)
    return Numbers(frames, path_of(request, frames), guidance_of(world.preset, request))


def frames_of(preset: Preset, settings: RuntimeParams, chunks: int) -> Frames:
    """The film's length. Raises `ConfigError` for one that cannot be."""
    causal = not preset.bidirectional
    least = 1 if causal else 2  # a further clip of one latent frame would add nothing
    if settings.chunk < least and chunks > 1:
        raise ConfigError(
            "clips of this length add nothing", expected="--chunk 2 or more", got=settings.chunk
        )
    frames = Frames(settings.chunk, chunks, causal)
    if chunks < 1 or frames.total > MAX_LATENT_FRAMES:
        raise ConfigError(
            "no such length", expected=f"1 to {MAX_LATENT_FRAMES} latent frames", got=chunks
        )
    return frames


def path_of(request: FilmRequest, frames: Frames) -> Path:
    """The film's path; None asked for stands still. Raises `ControlError` for another length."""
    if request.path is None:
        return Path(np.tile(np.eye(4, dtype=np.float32), (frames.total, 1, 1)), None)
    relative, keys = request.path.arrays()
    if len(relative) != frames.total:
        raise ControlError(
            "the path is not as long as the film",
            expected=f"{frames.total} latent frames",
            got=len(relative),
        )
    return Path(relative, keys)


def film_digest(world: World, request: FilmRequest, image: NDArray[np.uint8]) -> str:
    """Digest of all that the film's pixels depend on."""
    info = world.info
    options = [getattr(info.options, name) for name in OPTIONS_OF_FILMS]
    parts = [
        msgspec.msgpack.encode(request),
        repr((image.shape, info.model, info.weights, info.dtype, info.mode, options)).encode(),
        np.ascontiguousarray(image).tobytes(),
    ]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def guidance_of(preset: Preset, request: FilmRequest) -> float:
    """The weight of guidance. Raises `ConfigError` for one out of range, or a model without any."""
    scale = preset.sampler.guidance if request.guidance is None else request.guidance
    if not NO_GUIDANCE <= scale <= MAX_GUIDANCE:
        expected = f"{NO_GUIDANCE:g} (none) to {MAX_GUIDANCE:g}"
        raise ConfigError("unusable guidance", expected=expected, got=scale)
    guided = request.guidance is not None and scale > NO_GUIDANCE
    if preset.live and (guided or request.negative_prompt is not None or request.solver):
        raise ConfigError(
            f"{preset.name} is distilled and takes no guidance, negative prompt or solver",
            expected="a base or pretrained model",
        )
    return scale


def values_of(request: FilmRequest) -> RuntimeValues:
    """The run-time layer of a request."""
    return RuntimeValues(
        chunk=request.chunk,
        window=request.window,
        sink=request.sink,
        shift=request.shift,
        steps=request.steps,
    )


def open_session(
    world: World,
    request: FilmRequest,
    image: NDArray[np.uint8],
    *,
    noise: NoiseSource | None,
    stretch: bool,
) -> Session:
    """The prompt's side: picture, text, ring. Raises what `World.open` raises."""
    from worldline.runtime.engine import StartOptions

    given = request.intrinsics
    options = StartOptions(
        width=request.width,
        height=request.height,
        chunk=request.chunk,
        window=request.window,
        sink=request.sink,
        shift=request.shift,
        steps=request.steps,
        intrinsics=None if given is None else Intrinsics(*given),
        stretch=stretch,
        noise=noise,
        film=True,
        loras=request.loras,
    )
    return world.open(image, request.prompt, request.seed, options=options)


def full_decoder(engine: Engine, frames: Frames) -> StreamingVae:
    """A film is worth the full decoder, whatever live worlds are shown with.

    Clips that follow one another need whole pictures on every rank, to go on from them.
    """
    vae = engine.vae.full if isinstance(engine.vae, PreviewVae) else engine.vae
    return whole_vae(vae) if not frames.causal and frames.chunks > 1 else vae


def boundary_of(preset: Preset) -> float | None:
    """The timestep from which on the high-noise expert is asked; None for one network."""
    share = preset.sampler.boundary
    return None if share is None or preset.experts == 1 else share * TRAIN_STEPS


def moved(memory: Memory, device: torch.device) -> Memory:
    """A solver's memory on another device."""
    outputs = tuple(None if one is None else one.to(device) for one in memory.outputs)
    last = None if memory.last is None else memory.last.to(device)
    return memory._replace(outputs=outputs, last=last)


def solver_of(preset: Preset, request: FilmRequest, state: SessionState) -> Callable[[int], Solver]:
    """Makes the solver of a chunk."""
    settings = state.settings
    if not preset.live:
        kind = request.solver or "unipc"
        return lambda chunk: multistep(kind, settings.shift, len(settings.steps))
    euler = preset.sampler.kind == "euler"

    def few(chunk: int) -> Solver:
        return FewSteps(
            state.schedule,
            euler=euler,
            noise=lambda step: noise_of(state, chunk, step),
        )

    return few


def noise_of(state: SessionState, chunk: int, index: int) -> Tensor:
    """Noise of pass `index` of a chunk, `[1, 16, T, h, w]` on the picture's device."""
    shape = (1, LATENT_CHANNELS, state.settings.chunk, *state.geometry.latent)
    return upload(state.noise(chunk, index, shape), state.image.picture.device)
