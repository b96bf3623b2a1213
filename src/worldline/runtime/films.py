"""Films: the door to offline generation. A job does one piece of work per call and stops anywhere.

`open_film` checks everything and returns a `FilmJob`. Each `advance` is one turn of the device: the
conditions of a chunk, one denoise pass (of both branches of guidance), one context pass, or the
decode of one latent frame. Between two turns live sessions may step, the job may be saved, given up
(`close`) or left alone for as long as one likes: it is lower priority by being asked less often.

Any preset makes films. Guided ones (base and pretrained) take a multistep solver and both branches;
the base models' two experts take turns at a boundary. Causal models go chunk by chunk with a memory
of their own per branch. Models that see all frames at once make clips; a film of several goes on
from the last picture of the one before.

With a folder a job can be taken up again by another process: what was saved is not computed again,
and the film is the same, bit for bit, as one that was never interrupted.

    job = open_film(world, request, image, folder=folder)
    while not job.done:
        frames = job.advance()  # uint8 `F H W 3`, or None
        job.save()  # whenever it is worth it
    job.forget()  # the folder, once the film is written
    job.close()
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.core.errors import ConfigError, SessionClosedError
from worldline.core.film import FilmProgress, FilmRequest
from worldline.ops.vae import StreamState
from worldline.runtime import conditions, films_setup, pipeline
from worldline.runtime.conditions import Moved, PoseControls
from worldline.runtime.films_branches import Ask, Scene
from worldline.runtime.films_setup import Setup
from worldline.runtime.films_sides import Sides
from worldline.runtime.films_store import FilmStore, Kept, UnderWay
from worldline.runtime.inputs import picture_condition
from worldline.runtime.noise import NoiseSource
from worldline.runtime.passes import LATENT_CHANNELS, ModelInput
from worldline.runtime.session import Session
from worldline.runtime.state import ImageCondition, SessionState
from worldline.sampling.solvers import Solver

if TYPE_CHECKING:
    from worldline.runtime.engine import World

Pictures = NDArray[np.uint8]


def open_film(
    world: World,
    request: FilmRequest,
    image: Pictures,
    *,
    folder: Path | None = None,
    partner: World | None = None,
    noise: NoiseSource | None = None,
    stretch: bool = False,
) -> FilmJob:
    """Begin a film from a picture (uint8 `H W 3`, RGB), or go on with the one in `folder`.

    `partner` is the same model on a second device, which then computes the unconditional branch at
    the same time. `noise` and `stretch` serve parity runs, see `StartOptions`. Raises `ImageError`,
    `PromptError`, `ControlError`, `ConfigError`, `CapacityError`.
    """
    numbers = films_setup.numbers_of(world, request)
    session = films_setup.open_session(world, request, image, noise=noise, stretch=stretch)
    try:
        store = None if folder is None else _store(world, request, image, session, folder=folder)
        kept = None if store is None else store.load()
        sides = Sides(world, request, session, scale=numbers.scale, partner=partner)
        way = sides.choose(None if kept is None else kept.branches)
        branches, negative = sides.branches(way)
    except BaseException:
        session.close()
        raise
    setup = Setup(
        session=session,
        frames=numbers.frames,
        path=numbers.path,
        vae=films_setup.full_decoder(session.engine, numbers.frames),
        branches=branches,
        way=way,
        solver=films_setup.solver_of(world.preset, request, session.state),
        boundary=films_setup.boundary_of(world.preset),
        negative=negative,
    )
    return FilmJob(setup, store=store, kept=kept)


def _store(
    world: World, request: FilmRequest, image: Pictures, session: Session, *, folder: Path
) -> FilmStore:
    film = films_setup.film_digest(world, request, image)
    shape = (1, LATENT_CHANNELS, session.chunk, *session.state.geometry.latent)
    return FilmStore(folder, film, shape=shape)


class FilmJob:
    """A film under way; see the module. Not thread-safe: it belongs to the thread of its world.

    After an error it is over: close it, and open it again from its folder.
    """

    def __init__(self, setup: Setup, *, store: FilmStore | None = None, kept: Kept | None = None):
        """For `open_film`."""
        self._setup, self._store = setup, store
        self._chunks = [] if kept is None else list(kept.chunks)[: setup.frames.chunks]
        self._resumed = None if kept is None else kept.under_way
        self._resumed_steps = self._count_resumed()
        self._half = self._resumed  # saved again until there is something newer
        self._shown: Pictures | None = None
        self._video: Tensor | None = None
        self._decoder: StreamState | None = None
        self._last: Tensor | None = None  # the newest picture, `[1, 3, 1, H, W]`
        self._chunk = self._done = self._pictures = 0
        self._stage = "conditions"
        self._over = False
        self._work: Iterator[str] | None = self._run()
        self.width, self.height = setup.session.width, setup.session.height

    @property
    def done(self) -> bool:
        """Whether every picture has been handed out."""
        return self._over

    @property
    def latents(self) -> list[Tensor]:
        """Clean latents of every chunk made so far, `[1, 16, T, h, w]` on the host."""
        return self._chunks

    @property
    def decoded(self) -> Tensor | None:
        """The video `[1, 3, F, H, W]` in [-1, 1] that the newest turn decoded, or None."""
        return self._video

    @property
    def condition(self) -> Tensor:
        """Latents of the start picture as far as they were encoded, `[16, n, h, w]`."""
        image = self._setup.session.state.image
        assert image.latents is not None, "advance comes first"
        return image.latents[0]

    @property
    def turn_frames(self) -> int:
        """Pictures that one turn shows at most."""
        setup = self._setup
        return 4 if setup.vae.frame_by_frame else 4 * setup.frames.chunk

    @property
    def session(self) -> Session:
        """The prompt's side of it: what it begins with, as it really is."""
        return self._setup.session

    @property
    def branches(self) -> Literal["batched", "sequence"]:
        """How the branches of guidance run; on two devices each runs by itself, as in sequence."""
        return "batched" if self._setup.way == "batched" else "sequence"

    @property
    def overlap(self) -> int:
        """Latent frames that a chunk shares with the one before."""
        return self._setup.frames.overlap

    @property
    def path(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Relative poses `[T, 4, 4]` and walk keys `[T, 4]` of the film's latent frames."""
        return self._setup.path.relative, self._setup.path.keys

    @property
    def resumed(self) -> int:
        """Denoise passes that were found in the folder and are not made again."""
        return self._resumed_steps

    @property
    def progress(self) -> FilmProgress:
        """How far it is."""
        setup = self._setup
        return FilmProgress(
            stage=self._stage,
            done=self._done,
            total=self._total(),
            chunk=self._chunk,
            chunks=setup.frames.chunks,
            frames=self._pictures,
            total_frames=setup.frames.pictures,
        )

    @torch.no_grad()
    def advance(self) -> Pictures | None:
        """Do one piece of work; the pictures that it decoded, uint8 `F H W 3`, or None.

        Raises `SessionClosedError` once it is closed or done, and what passes raise.
        """
        if self._work is None or self._over:
            raise SessionClosedError("this film is closed" if not self._over else "it is done")
        self._setup.session.engine.wear()  # others may have had the networks since
        work, self._work = self._work, None
        self._shown = self._video = None
        self._stage = next(work)
        self._work = work  # else it has failed, and is over
        self._done += 1
        self._over = self._done >= self._total()
        return self._shown

    def save(self) -> None:
        """Write down how far it is. Raises `ConfigError` where that cannot be written."""
        if self._store is None:
            raise ConfigError("this film has no folder", expected="open_film(..., folder=...)")
        self._store.save(self._setup.way, self._chunks, self._half)

    def forget(self) -> None:
        """Remove what was saved: the film has been written."""
        if self._store is not None:
            self._store.remove()

    def close(self) -> None:
        """Give back all memory; what was saved stays. Doing it again does no harm."""
        self._work = None
        self._setup.close()

    def __enter__(self) -> FilmJob:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- the work, one `yield` per turn ---------------------------------------------------------

    def _run(self) -> Iterator[str]:
        frames = self._setup.frames
        for self._chunk in range(frames.chunks):
            model_input, scene = self._conditions()
            yield "conditions"
            if self._chunk < len(self._chunks):
                latents = self._chunks[self._chunk].to(self._device)
                self._done += self._setup.steps
            else:
                latents = yield from self._denoise(model_input)
                made = latents.cpu()
                self._half = None  # first: a Ctrl-C in between loses a chunk, and mixes no two
                self._chunks.append(made)
            yield from self._decode(latents)
            if frames.causal and self._chunk + 1 < frames.chunks:
                self._setup.branches.commit(model_input.with_latents(latents))
                yield "context"
            self._next(scene)

    def _conditions(self) -> tuple[ModelInput, Scene]:
        """The picture's latents, rays and texts of the chunk."""
        setup, state, engine = self._setup, self._setup.session.state, self._setup.session.engine
        seen = setup.frames.seen(self._chunk)
        if setup.frames.causal:
            for one in self._states():
                pipeline.reanchor(engine, one)
                one.kv.begin_chunk(seen.start, len(seen))
        elif self._chunk > 0:
            assert self._last is not None, "the clip before has been decoded"
            state.image = ImageCondition(self._last)
        scene = Scene(seen, self._motion(seen))
        setup.branches.aim(scene)
        return ModelInput(picture_condition(engine, state, seen)), scene

    def _states(self) -> list[SessionState]:
        setup = self._setup
        return [
            setup.session.state,
            *([] if setup.negative is None else [setup.negative.state]),
        ]

    def _motion(self, seen: range) -> Moved:
        setup, state = self._setup, self._setup.session.state
        start = setup.frames.first(self._chunk)
        part = slice(start, start + len(seen))
        relative = setup.path.relative[part].copy()
        if seen.start == 0:
            relative[0] = np.eye(4)  # the picture itself, also of a later clip
        keys = None if setup.path.keys is None else setup.path.keys[part]
        controls = PoseControls(relative, keys)
        return conditions.fold_motion(state.camera, controls, state.rig, seen)

    def _denoise(self, model_input: ModelInput) -> Iterator[str]:
        setup, state = self._setup, self._setup.session.state
        solver: Solver = setup.solver(self._chunk)
        x = films_setup.noise_of(state, self._chunk, 0)
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            x = resumed.latents.to(self._device)
            solver.restore(films_setup.moved(resumed.memory, self._device))
            self._done += solver.memory.step
        for t in solver.timesteps[solver.memory.step :]:
            ask = Ask(model_input.with_latents(x), t, setup.expert(t))
            x = solver.step(setup.branches.flow(ask), x)
            self._half = UnderWay(x, solver.memory)
            yield "denoise"
        return x

    def _decode(self, latents: Tensor) -> Iterator[str]:
        frame_by_frame = self._setup.vae.frame_by_frame
        clip = self._chunk > 0 and not self._setup.frames.causal
        lane = self._setup.session.engine.lane
        for i, some in enumerate(latents.split(1, dim=2) if frame_by_frame else (latents,)):
            with lane.decoding(some):
                video, self._decoder = self._setup.vae.decode_stream(some, self._decoder)
            frames = lane.fetch(video)
            self._last, self._video = video[:, :, -1:].float(), video
            # A later clip begins with the picture that the one before ended with.
            self._shown = frames[1:] if clip and i == 0 else frames
            self._pictures += len(self._shown)
            yield "decode"

    def _next(self, scene: Scene) -> None:
        if self._setup.frames.causal:
            for state in self._states():
                state.next_chunk += 1
        else:
            self._decoder = None

    @property
    def _device(self) -> torch.device:
        return self._setup.session.engine.dit.device

    def _total(self) -> int:
        setup = self._setup
        decodes = setup.frames.chunk if setup.vae.frame_by_frame else 1
        each = 1 + setup.steps + decodes + int(setup.frames.causal)
        return setup.frames.chunks * each - int(setup.frames.causal)

    def _count_resumed(self) -> int:
        half = 0 if self._resumed is None else self._resumed.memory.step
        return len(self._chunks) * self._setup.steps + half
