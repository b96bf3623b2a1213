"""All history of one session, in one object.

Nothing else remembers anything: snapshot = copy this, branch = copy it twice, close = drop it.
What lives only inside a chunk is not here but in the worker's workspace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from worldline.core.camera import START, CameraState, Intrinsics
from worldline.core.motion import Rig
from worldline.core.snapshot import LightPrompt
from worldline.models.preset import RuntimeParams
from worldline.ops.vae import StreamState
from worldline.runtime.film import LatentFilm
from worldline.runtime.first_chunk import start_digest
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.noise import NoiseSource, SeededNoise
from worldline.runtime.step_cache import StepCache
from worldline.sampling.schedules import Schedule

if TYPE_CHECKING:
    from worldline.runtime.first_chunk import Opening
    from worldline.runtime.replay import History
    from worldline.runtime.timeline import Timeline


UNSAID = LightPrompt("")


class Geometry(NamedTuple):
    """Sizes of a session: pixels, latent cells and tokens."""

    width: int
    height: int

    @property
    def latent(self) -> tuple[int, int]:
        """Latent grid `(h, w)`: eight pixels per cell."""
        return self.height // 8, self.width // 8

    @property
    def tokens(self) -> tuple[int, int]:
        """Token grid `(h/2, w/2)`."""
        return self.height // 16, self.width // 16

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        rows, columns = self.tokens
        return rows * columns


@dataclass
class ImageCondition:
    """The start picture as far as it has been encoded.

    `latents [1, 16, n, h, w]` are the encode of [picture, mid-grey ...]; from the VAE's stationary
    index on they repeat.
    """

    picture: Tensor  # 1 3 1 H W in [-1, 1]
    latents: Tensor | None = None
    encoder: StreamState | None = None

    @property
    def encoded(self) -> int:
        """Latent frames encoded so far."""
        return 0 if self.latents is None else self.latents.shape[2]


@dataclass
class PromptStates:
    """Text states `[1, S, C]` in force, and where a blend is heading.

    From row `rows` on all of them are zero; None where nobody knows. `said` are the same in words.
    """

    current: Tensor
    source: Tensor
    target: Tensor
    rows: int | None = None
    blend_chunks: int = 0
    blended: int = 0
    said: LightPrompt = UNSAID


class Origin(NamedTuple):
    """What a session goes back to: its first text, and a digest of its start without the seed.

    No digest where nobody knows what noise it takes.
    """

    prompt: PromptStates
    digest: bytes | None

    def start(self, seed: int) -> bytes | None:
        """Digest of all that a session of that seed begins with."""
        return None if self.digest is None else start_digest([self.digest, seed])


@dataclass
class SessionState:
    """One world: its settings, then everything that changes from chunk to chunk."""

    session_id: str
    geometry: Geometry
    settings: RuntimeParams
    schedule: Schedule
    intrinsics: Intrinsics
    rig: Rig
    origin: Origin
    noise: NoiseSource
    kv: FrameRing
    image: ImageCondition
    prompt: PromptStates
    camera: CameraState = START
    decoder: StreamState | None = None
    next_chunk: int = 0
    anchor: int = 0  # latent frame at which RoPE counts time from 0
    sink_shift: int = 0  # latent frames by which the sink was moved towards the present
    start: bytes | None = None  # digest of all it begins with; None: not known
    opening: Opening | None = None  # its first chunk, until that is kept for equal starts
    past: History | None = None  # clean latents of the chunks in the ring, where they are kept
    caches: StepCache = field(default_factory=StepCache)
    timeline: Timeline | None = None  # what it was, as far back as that is kept
    film: LatentFilm | None = None  # every chunk's latents, where they are kept for a recording
    parked: bool = False  # all of it is in host memory, see `parking`

    @property
    def next_frame(self) -> int:
        """Absolute index of the next latent frame."""
        return self.next_chunk * self.settings.chunk

    def begin_again(self, seed: int | None) -> None:
        """Back to the start picture and the first text, as if new; None keeps the noise."""
        if seed is not None:
            self.noise = SeededNoise(seed)
        noise = self.noise
        self.start = self.origin.start(noise.seed) if isinstance(noise, SeededNoise) else None
        self.prompt, self.camera, self.decoder, self.opening = self.origin.prompt, START, None, None
        self.next_chunk = self.anchor = self.sink_shift = 0
        self.kv.empty()
        for kept in (self.past, self.film, self.timeline):
            if kept is not None:
                kept.clear()
