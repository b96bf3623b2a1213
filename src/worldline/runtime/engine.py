"""The library API, in process: load a model, start worlds on it, step them chunk by chunk.

Knows nothing about sockets, clocks or users. A `World` holds weights and what sessions share; each
`Session` holds one `SessionState`, so sessions on one world interleave and none sees another.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics, check_intrinsics
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.core.errors import ConfigError, ImageError
from worldline.core.lora import Outfit
from worldline.core.motion import Rig, check_rig
from worldline.kernels.choice_file import AttentionChoice
from worldline.models.preset import Preset, RuntimeParams, resolve_runtime
from worldline.models.registry import require_live
from worldline.ops.collectives import ALONE, Collectives
from worldline.ops.image import image_to_tensor
from worldline.runtime.assembly import Manner, assemble, take_ring
from worldline.runtime.conditions import plain_prompt
from worldline.runtime.description import describe
from worldline.runtime.device import preferred_dtype, tune_for_cpu
from worldline.runtime.device import setup as setup_device
from worldline.runtime.film import LatentFilm
from worldline.runtime.first_chunk import start_digest
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.ledger import Ledger
from worldline.runtime.levers import check_numbers
from worldline.runtime.loader import Components, load_components
from worldline.runtime.lora import wardrobe_of
from worldline.runtime.memory import camera_cache_fits
from worldline.runtime.memory_plan import MemoryPlan
from worldline.runtime.noise import SeededNoise
from worldline.runtime.parallel.shards import Unshared
from worldline.runtime.parallel.vae import whole_vae
from worldline.runtime.protocol import Counts
from worldline.runtime.reopening import read_snapshot
from worldline.runtime.replay import History
from worldline.runtime.session import Session
from worldline.runtime.shared import Engine
from worldline.runtime.snapshot import Snapshot, count_moments, resumed
from worldline.runtime.snapshot_light import reach_of
from worldline.runtime.start_options import StartOptions, make_schedule, nearest_size
from worldline.runtime.state import (
    Geometry,
    ImageCondition,
    Origin,
    SessionState,
)
from worldline.runtime.step_cache import StepCache
from worldline.runtime.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worldline.core.film import FilmRequest
    from worldline.runtime.films import FilmJob

# Length of the official RoPE table: positions the published models were trained and shipped with.
TRAINED_FRAMES = 1024

Progress = Callable[[int, int, str], None]


class World:
    """A loaded model; start any number of sessions on it."""

    def __init__(
        self,
        components: Components,
        *,
        mode: str = "exact",
        options: EngineOptions = DEFAULT_OPTIONS,
        without: Collection[str] = (),
        reanchor_at: int = TRAINED_FRAMES,
        synchronise: bool = False,
        group: Collectives = ALONE,
    ) -> None:
        """Take loaded networks.

        `without` names savings to switch off (see `runtime.savings`). Positions in time stay below
        `reanchor_at` latent frames. With a `group` this is one rank of a world: all of them make
        the same calls in the same order, and all get the same latents. Raises `ConfigError`.
        """
        self.components = components
        self.mode = mode
        self.options = options
        manner = Manner(mode, options, without, reanchor_at, synchronise)
        self.shared = assemble(components, manner, group)
        self.info = describe(components, mode, self.shared, options)
        self.loras = wardrobe_of(components, self.shared)
        self._plan: MemoryPlan | None = None

    def wear_always(self, loras: Sequence[str]) -> None:
        """Load adapters, `[NAME=]FILE[@SCALE]`, for every session that names none itself.

        Raises the `CheckpointError` family, and `ConfigError` for names that cannot be had.
        """
        for spec in loras:
            self.loras.always(spec)
        weights = self.shared.weights + self.loras.mark()
        self.info = msgspec.structs.replace(self.info, weights=weights)

    def plan_memory(self) -> None:
        """Find out what sessions take, tell it in `info`, and let no more in than fit."""
        self._plan = plan = MemoryPlan(self.components, self.shared, self.options)
        settings = resolve_runtime(self.preset, self.components.checkpoint)
        sizes = [Geometry(*size) for size in self.preset.sizes]
        largest = max(sizes, key=lambda size: size.width * size.height)
        session, workspace = plan.session(settings, largest), plan.workspace(settings, largest)
        room = plan.budget - plan.weights - workspace
        ledger = Ledger(max(room, session), self.shared.shards.group.every)
        self.shared = self.shared._replace(ledger=ledger)
        self.info = msgspec.structs.replace(
            self.info,
            weights_bytes=plan.weights,
            session_bytes=session,
            workspace_bytes=workspace,
            budget_bytes=plan.budget,
        )

    @property
    def preset(self) -> Preset:
        """The numbers of the loaded model."""
        return self.components.preset

    @property
    def kernels(self) -> str:
        """What computes between the matmuls: `torch`, `triton` or `compiled`."""
        return self.shared.math.name

    @property
    def attention(self) -> list[AttentionChoice]:
        """The attention chosen by measurement so far; empty where torch decides."""
        return [] if self.shared.chooser is None else self.shared.chooser.choices

    def start(
        self,
        image: NDArray[np.uint8],
        prompt: str,
        seed: int = 42,
        *,
        width: int | None = None,
        height: int | None = None,
        chunk: int | None = None,
        window: int | None = None,
        sink: int | None = None,
        shift: float | None = None,
        steps: int | Sequence[int] | None = None,
        intrinsics: Intrinsics | None = None,
        rig: Rig | None = None,
        keep_latents: bool = False,
        sharded: bool = True,
        loras: Outfit | None = None,
    ) -> Session:
        """Open a world from a picture (uint8 `H W 3`, RGB) and a prompt.

        Sizes are pixels (multiples of 16; by default the preset's size of that orientation); for
        the rest see `StartOptions`. Raises `ImageError`, `PromptError`, `ControlError` and
        `ConfigError`.
        """
        options = StartOptions(
            width=width,
            height=height,
            chunk=chunk,
            window=window,
            sink=sink,
            shift=shift,
            steps=steps,
            intrinsics=intrinsics,
            rig=rig,
            keep_latents=keep_latents,
            sharded=sharded,
            loras=loras,
        )
        return self.open(image, prompt, seed, options=options)

    @torch.no_grad()
    def open(
        self, image: NDArray[np.uint8], prompt: str, seed: int, *, options: StartOptions
    ) -> Session:
        """`start`, with its options in one value. Raises `CapacityError` where it does not fit."""
        if not options.film:
            require_live(self.preset)
        settings = resolve_runtime(self.preset, self.components.checkpoint, options.runtime)
        geometry = self._geometry(image, options)
        engine = self.engine(geometry, settings, sharded=options.sharded, loras=options.loras)
        check_numbers(engine, settings)
        rig = check_rig(options.rig or self.preset.rig)
        intrinsics = check_intrinsics(options.intrinsics or self.preset.intrinsics)
        session_id = uuid.uuid4().hex
        first = plain_prompt(prompt, engine.text(prompt))
        origin = Origin(first, self._digest(image, prompt, options=options))
        state = SessionState(
            session_id=session_id,
            geometry=geometry,
            settings=settings,
            schedule=make_schedule(self.preset, settings),
            intrinsics=intrinsics,
            rig=rig,
            origin=origin,
            noise=options.noise or SeededNoise(seed),
            image=self._picture(image, geometry, stretch=options.stretch),
            prompt=first,
            caches=StepCache(off=engine.without),
            start=origin.start(seed),
            past=History() if self.options.recache else None,
            film=LatentFilm() if options.keep_latents else None,
            timeline=Timeline(
                reach_of(engine, settings),
                engine.timeline_bytes,
                # Ranks have parts of unequal size, and must not disagree about what is kept.
                moments=engine.shards.group.size == 1,
            ),
            kv=self._ring(engine, session_id, geometry, settings),  # last: what fails takes none
        )
        return Session(engine, state)

    def film(
        self, request: FilmRequest, image: NDArray[np.uint8], *, folder: Path | None = None
    ) -> FilmJob:
        """A film of any model, guided ones included: see `runtime.films.open_film`."""
        from worldline.runtime.films import open_film

        return open_film(self, request, image, folder=folder)

    def _ring(
        self, engine: Engine, session_id: str, geometry: Geometry, settings: RuntimeParams
    ) -> FrameRing:
        """The session's memory, if there is room for it."""
        engine.ledger.admit(session_id, self._planned(engine, geometry, settings))
        try:
            return take_ring(engine, geometry, settings)
        except BaseException:
            engine.ledger.close(session_id)
            raise

    def _planned(self, engine: Engine, geometry: Geometry, settings: RuntimeParams) -> int:
        """Bytes that a session will take of the device."""
        if self._plan is None:
            return 0
        return self._plan.session(settings, geometry, sharded=engine.shards.ranks > 1)

    def resume(
        self, snapshot: Snapshot, *, sharded: bool = True, loras: Outfit | None = None
    ) -> Session:
        """Another session where a snapshot was taken; it takes nothing of the device until stepped.

        `sharded` and `loras` as in `start`, and as the session had them. Raises
        `OtherWeightsError`, `SnapshotError`, `ConfigError`.
        """
        kind = snapshot.kind
        engine = self.engine(kind.geometry, kind.settings, sharded=sharded, loras=loras)
        planned = self._planned(engine, kind.geometry, kind.settings)
        schedule = make_schedule(self.preset, kind.settings)
        return Session(engine, resumed(engine, snapshot, schedule=schedule, planned=planned))

    def reopen(
        self, path: str | Path, *, sharded: bool = True, loras: Outfit | None = None
    ) -> Session:
        """`resume` from a file that `Session.save` has written. Raises also what that may hold."""
        shards = self.shared.shards if sharded else Unshared(self.shared.shards.group)
        engine = self.loras.dressed(self.shared._replace(shards=shards), loras)
        return self.resume(read_snapshot(engine, str(path)), sharded=sharded, loras=loras)

    def counts(self) -> Counts:
        """What this world's sessions take now; how many there are is not its business."""
        moments, moment_bytes = count_moments(self.shared)
        rings, device = self.shared.rings.held, self.components.dit.device
        taken = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        return Counts(
            rings=len(rings),
            ring_bytes=sum(ring.nbytes for ring in rings),
            parked_bytes=self.shared.ledger.parked_bytes,
            device_bytes=taken,
            moments=moments,
            moment_bytes=moment_bytes,
        )

    def watch(self, entered: Callable[[str], None]) -> None:
        """From now on call `entered` with every stage of a chunk that sessions begin."""
        self.shared = self.shared._replace(entered=entered)

    def _digest(
        self, image: NDArray[np.uint8], prompt: str, *, options: StartOptions
    ) -> bytes | None:
        """Digest of all a session begins with but the seed; None where its noise is not seeded."""
        if options.noise is not None:
            return None
        model = (self.info, self.options, sorted(self.shared.without), self.shared.reanchor_at)
        picture = (image.shape, np.ascontiguousarray(image).tobytes())
        return start_digest([*model, *picture, prompt, options, self.loras.mark(options.loras)])

    def engine(
        self,
        geometry: Geometry,
        settings: RuntimeParams,
        *,
        sharded: bool = True,
        loras: Outfit | None = None,
    ) -> Engine:
        """What the pipeline needs of this world for a session of that size."""
        dit, shards, vae = self.components.dit, self.shared.shards, self.shared.vae
        if not sharded:
            shards, vae = Unshared(shards.group), whole_vae(vae)
        tokens = settings.chunk * geometry.tokens_per_frame
        shards.of(geometry.tokens_per_frame)  # of a chunk made anew, one frame may still be there
        shard = shards.of(tokens)
        tokens = tokens if shard.tokens is None else len(shard.tokens)
        fits = self.shared.camera_cache and camera_cache_fits(dit, tokens)
        made = self.shared._replace(camera_cache=fits, shards=shards, vae=vae)
        return self.loras.dressed(made, loras)

    def _picture(
        self, image: NDArray[np.uint8], geometry: Geometry, *, stretch: bool
    ) -> ImageCondition:
        picture = image_to_tensor(
            image, geometry.width, geometry.height, antialias=not stretch, crop=not stretch
        )
        return ImageCondition(picture.to(self.components.dit.device))

    def _geometry(self, image: NDArray[np.uint8], options: StartOptions) -> Geometry:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            got = f"{image.dtype} {list(image.shape)}"
            raise ImageError("the picture has the wrong shape", expected="uint8 [H, W, 3]", got=got)
        width, height = options.width, options.height
        if width is None or height is None:
            width, height = nearest_size(self.preset.sizes, image.shape[1], image.shape[0])
        if width <= 0 or height <= 0 or width % 16 or height % 16:
            got = f"{width}x{height}"
            raise ConfigError("unusable size", expected="positive multiples of 16", got=got)
        return Geometry(width, height)


def load(
    model: str = "pocket",
    *,
    device: str = "auto",
    dtype: str | None = None,
    mode: str = "exact",
    random_weights: bool = False,
    threads: int | None = None,
    options: EngineOptions = DEFAULT_OPTIONS,
    synchronise: bool = False,
    progress: Progress | None = None,
    group: Collectives = ALONE,
) -> World:
    """Load a preset, a local folder or a hub repository.

    `device` is `auto`, `cpu`, `cuda` or `cuda:N`; `dtype` is `float32` or `bfloat16`, None for the
    preset's own; `random_weights` builds a preset without any files. `synchronise` makes the stage
    times of a CUDA device true at the cost of a sync per stage. With a `group` the world is one
    rank of it, see `World`. Raises `ConfigError` and the
    `CheckpointError` family.
    """
    check_options(options)
    target = setup_device(device, mode, threads)
    components = load_components(
        model,
        device=target,
        dtype=dtype or preferred_dtype(target, mode),
        mode=mode,
        random_weights=random_weights,
        options=options,
        progress=progress,
    )
    tune_for_cpu(components.dit, components.vae, target, mode=mode)
    world = World(components, mode=mode, options=options, synchronise=synchronise, group=group)
    world.wear_always(options.loras)
    world.plan_memory()
    return world


def check_options(options: EngineOptions) -> None:
    """Refuse option values that do not exist. Raises `ConfigError`."""
    try:
        msgspec.convert(msgspec.to_builtins(options), EngineOptions)
    except msgspec.ValidationError as error:
        raise ConfigError(
            "unusable engine option", expected="see EngineOptions", got=error
        ) from None
    for name in ("resident_blocks", "first_chunks_mb", "timeline_mb"):
        value, least = getattr(options, name), int(name == "resident_blocks")
        if value < least:
            raise ConfigError(f"unusable {name}", expected=f"at least {least}", got=value)
