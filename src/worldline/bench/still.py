"""`--model still`: no model at all, the start picture moved about, for measuring everything else.

With it `worldline serve`, `bench latency` and `bench served` show what sockets, encoders, browsers
and the page need when the device has nothing to do. Turning shifts the picture sideways, looking
up and down and walking likewise; what is turned out on one side comes in on the other. `still` is
as large as the pocket world, `still-832x480` as large as that.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldline.core.camera import (
    DEFAULT_INTRINSICS,
    START,
    CameraState,
    Intrinsics,
    advance,
    scale_intrinsics,
)
from worldline.core.chunk import PICTURES, Chunk, Decoded, StageTimings
from worldline.core.config import EngineOptions, WorldInfo
from worldline.core.errors import AbortedError, ConfigError, SnapshotError
from worldline.core.film import FilmRequest
from worldline.core.motion import Motion, Pose, Rig
from worldline.core.snapshot import LightChunk, LightPrompt, LightSnapshot
from worldline.runtime.film_calls import EngineFilm
from worldline.runtime.protocol import Counts, Rebuilt

NAME: Final = re.compile(r"still(?:-(\d{2,4})x(\d{2,4}))?")
SIZE: Final = (160, 96)
TURN_PX: Final = 1 / 60.0  # of the width, per degree
WALK_PX: Final = 0.5  # of the width, per unit walked

Pixels = NDArray[np.uint8]


def still_info(model: str, *, threads: int | None = None) -> WorldInfo:
    """What a name stands for. Raises: ConfigError."""
    found = NAME.fullmatch(model)
    if found is None:
        raise ConfigError("no such measuring model", expected="still or still-WxH", got=model)
    width, height = SIZE if found[1] is None else (int(found[1]), int(found[2]))
    if width % 16 or height % 16:
        raise ConfigError("no such size", expected="multiples of 16", got=f"{width}x{height}")
    return WorldInfo(
        model=model,
        family="still",
        width=width,
        height=height,
        sizes=((width, height),),
        fps=16,
        chunk=3,
        window=9,
        sink=0,
        steps=1,
        device="none",
        dtype="uint8",
        mode="exact",
        licence="none",
        notice="There is no model: the start picture is moved about. For measurements.",
        threads=threads or 1,
    )


class StillSession:
    """A camera over one picture, uint8 `H W 3`."""

    def __init__(
        self, picture: Pixels, info: WorldInfo, *, rig: Rig, intrinsics: Intrinsics, chunk: int
    ) -> None:
        self.width, self.height, self.chunk = info.width, info.height, chunk
        self.window, self.sink, self.steps = info.window, info.sink, info.steps
        self.rig, self.parked = rig, False
        self.intrinsics = scale_intrinsics(intrinsics, info.width, info.height)
        image = Image.fromarray(picture).resize((info.width, info.height))
        self._picture = np.asarray(image)
        self._light = self._begun = LightSnapshot(
            weights=info.weights,
            seed=0,
            width=info.width,
            height=info.height,
            chunk=chunk,
            window=info.window,
            sink=info.sink,
            history=0,
            prompt=LightPrompt("still"),
        )
        self._index = 0
        self._camera = START

    def step(
        self,
        controls: Sequence[Collection[str]] | Sequence[Motion] | None = None,
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
        steps: int | None = None,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
    ) -> Chunk:
        """The next chunk. Raises: AbortedError, ControlError."""
        began = time.perf_counter()
        if aborted is not None and aborted():
            raise AbortedError("the chunk was given up", got=self._index)
        asked: list[Collection[str] | Motion] = list(controls or ())
        asked += [()] * (self.chunk - len(asked))
        parts: list[Pixels] = []
        cameras = [self._camera]
        for latent, control in enumerate(asked[: self.chunk]):
            cameras.append(advance(cameras[-1], control, self.rig))
            count = 1 if self._index == latent == 0 else PICTURES
            frames = self._pictures(cameras[-2], cameras[-1], count)
            if on_frames is not None:
                first = sum(map(len, parts))
                on_frames(Decoded(latent, first, frames, cameras[-1].pose))
            parts.append(frames)
        self._camera = cameras[-1]
        self._index += 1
        spent = StageTimings(total_ms=1000 * (time.perf_counter() - began))
        poses = tuple(camera.pose for camera in cameras[1:])
        self._last = self._kept(poses)
        self._light = self._light.with_chunk(self._last)
        return Chunk(self._index - 1, np.concatenate(parts), spent, poses)

    def moving(self, *, back: bool = False) -> Iterator[None]:
        """Be parked, or back: there is nothing to move."""
        yield
        self.parked = not back

    def reset(self, seed: int | None = None) -> None:
        """Back to the start."""
        self._index, self._camera, self._light = 0, START, self._begun

    @property
    def next_chunk(self) -> int:
        """The chunk that the next step makes."""
        return self._index

    def last_chunk(self) -> LightChunk:
        """What the last step adds to a light snapshot."""
        return self._last

    def light_snapshot(self) -> LightSnapshot:
        """The session as it stands; its latents are nothing."""
        return self._light

    def restoring(self, kept: LightSnapshot) -> Generator[None, None, Rebuilt]:
        """Stand where a light snapshot was taken: all there is to it is the camera."""
        yield
        pose = kept.camera
        rows = np.array([*pose.c2w, 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
        self._camera = CameraState(rows, pitch_deg=pose.pitch, yaw_deg=pose.yaw)
        self._index, self._light = kept.next_chunk, kept
        return "exact"

    def rewinding(self, chunk: int) -> Generator[None, None, Rebuilt]:
        """Go back. Raises: SnapshotError, further than the light snapshot reaches."""
        found = self._light.before(chunk, self._begun)
        if found is None:
            raise SnapshotError("no such place in the walk", got=chunk)
        return (yield from self.restoring(found))

    def branching(self, chunk: int | None) -> Generator[None, None, tuple[StillSession, Rebuilt]]:
        """Another one that stands here, or before a chunk."""
        made = copy.copy(self)
        if chunk is None:
            yield
            return made, ""
        return made, (yield from made.rewinding(chunk))

    def writing(self, path: str) -> Generator[None, None, int]:
        """Nothing is worth a file. Raises: SnapshotError."""
        yield
        raise SnapshotError("there is no model, and nothing to write", got=path)

    def _kept(self, poses: tuple[Pose, ...]) -> LightChunk:
        cells = (self.width // 8) * (self.height // 8)
        return LightChunk(
            index=self._index - 1,
            frames=self.chunk,
            latents=bytes(16 * cells * self.chunk * 4),
            relative=bytes(64 * self.chunk),
            keys=bytes(16 * self.chunk),
            poses=poses,
            prompt=self._light.prompt,
        )

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def close(self) -> None:
        """There is nothing to drop."""

    def _pictures(self, before: CameraState, after: CameraState, count: int) -> Pixels:
        """The picture as it is seen on the way from one camera to the next: `F H W 3`."""
        (x0, y0), (x1, y1) = (self._shift(camera) for camera in (before, after))
        shares = [(i + 1) / count for i in range(count)]
        ways = [(round(x0 + (x1 - x0) * s), round(y0 + (y1 - y0) * s)) for s in shares]
        return np.stack([np.roll(self._picture, (down, -right), (0, 1)) for right, down in ways])

    def _shift(self, camera: CameraState) -> tuple[float, float]:
        """Pixels to the right and down."""
        x, z = float(camera.c2w[0, 3]), float(camera.c2w[2, 3])
        right = camera.yaw_deg * TURN_PX + x * WALK_PX
        return right * self.width, (camera.pitch_deg * TURN_PX - z * WALK_PX) * self.width


class StillWorld:
    """Starts sessions; shaped like `worldline.World`."""

    def __init__(self, info: WorldInfo) -> None:
        self.info = info

    def start(
        self,
        image: Pixels,
        prompt: str,
        seed: int = 42,
        *,
        width: int | None = None,
        height: int | None = None,
        chunk: int | None = None,
        window: int | None = None,
        sink: int | None = None,
        shift: float | None = None,
        steps: int | None = None,
        intrinsics: Intrinsics | None = None,
        rig: Rig | None = None,
        loras: tuple[tuple[str, float], ...] | None = None,
        sharded: bool = True,
    ) -> StillSession:
        """A session over `image`, uint8 `H W 3`; what a model would need is not looked at."""
        return StillSession(
            image,
            self.info,
            rig=rig or Rig(),
            intrinsics=intrinsics or DEFAULT_INTRINSICS,
            chunk=chunk or self.info.chunk,
        )

    def reopen(
        self,
        path: str,
        *,
        sharded: bool = True,
        loras: tuple[tuple[str, float], ...] | None = None,
    ) -> StillSession:
        """No session was ever written. Raises: SnapshotError."""
        raise SnapshotError("there is no model, and nothing was written", got=path)

    def counts(self) -> Counts:
        """Nothing is held."""
        return Counts()

    def watch(self, entered: Callable[[str], None]) -> None:
        """There are no stages."""

    def film(
        self, request: FilmRequest, image: NDArray[np.uint8], *, folder: Path | None
    ) -> EngineFilm:
        """There are none."""
        raise ConfigError("the still world makes no films")


def load(
    model: str,
    *,
    device: str,
    dtype: str | None,
    mode: str,
    random_weights: bool,
    threads: int | None,
    options: EngineOptions,
    progress: Callable[[int, int, str], None],
    group: object = None,
) -> StillWorld:
    """What the worker calls. Raises: ConfigError; there is nothing for a `group` to share out."""
    if group is not None:
        raise ConfigError("a measuring model is not shared out", expected="--replicas", got="--sp")
    return StillWorld(still_info(model, threads=threads))
