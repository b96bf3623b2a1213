"""One picture of a world in the formats its viewers asked for; each format once, in a thread.

H.264 goes first and keeps its own history; stills are made of a copy of the newest picture, when
somebody needs one, and kept until there is a newer one.
"""

from __future__ import annotations

import functools
from concurrent.futures import Executor
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.clock import Clock
from worldline.core.live.server import Frame
from worldline.core.live.shared import Format
from worldline.core.motion import Pose
from worldline.media import jpeg, raw, webp
from worldline.server.live.following import Unit
from worldline.server.waiting import in_thread

Pixels = NDArray[np.uint8]
QUALITY: Final[dict[str, int]] = {"jpeg": 90, "webp": 85}
STILL_QUALITY: Final = 75  # who needs stills has a slow link
LOWEST_QUALITY: Final = 30
_ENCODER: Final = msgspec.msgpack.Encoder()


class Picture(NamedTuple):
    """One picture, `pixels` `H W 3`, and what its message says of it.

    It is number `place` of the `places` pictures of its latent frame, on the way from the pose
    `before` to `view`.
    """

    number: int
    chunk: int
    latent_frame: int
    input: int
    view: Pose
    first: bool
    pixels: Pixels
    before: Pose
    place: int
    places: int

    @property
    def turned(self) -> tuple[float, float]:
        """Yaw and pitch of this picture, in degrees: a latent frame's pose is that of its last
        picture, and the motion inside it is even."""
        share = (self.place + 1) / self.places
        yaw = self.before.yaw + share * (self.view.yaw - self.before.yaw)
        return yaw, self.before.pitch + share * (self.view.pitch - self.before.pitch)


class Renditions:
    """The pictures of one world as images."""

    def __init__(self, clock: Clock, encoders: Executor) -> None:
        self.quality = 0
        self.share = 1.0
        self._clock = clock
        self._encoders = encoders
        self._newest: Picture | None = None
        self._stills: dict[Format, Unit] = {}

    @property
    def newest(self) -> Picture | None:
        """The picture that a still would be made of."""
        return self._newest

    def keep(self, picture: Picture) -> Picture:
        """Make `picture` the newest; its pixels are copied. That copy."""
        self._newest = kept = picture._replace(pixels=picture.pixels.copy())
        self._stills.clear()
        return kept

    async def image(self, picture: Picture, kind: Format) -> Unit:
        """One picture that stands alone."""
        call = functools.partial(image_bytes, picture.pixels, kind, self._quality(kind))
        return self._unit(picture, kind, await in_thread(self._encoders, call))

    async def still(self, kind: Format) -> Unit | None:
        """The newest picture for one who is behind; those of H.264 get a JPEG."""
        picture = self._newest
        if picture is None:
            return None
        kind = "jpeg" if kind == "h264" else kind
        found = self._stills.get(kind)
        if found is None:
            quality = min(STILL_QUALITY, self._quality(kind))
            call = functools.partial(image_bytes, picture.pixels, kind, quality)
            found = self._unit(picture, kind, await in_thread(self._encoders, call))
            if picture is self._newest:
                self._stills[kind] = found
        return found

    def _quality(self, kind: Format) -> int:
        full = self.quality or QUALITY.get(kind, 0)
        return max(min(full, LOWEST_QUALITY), round(full * self.share))

    def _unit(self, picture: Picture, kind: Format, data: bytes) -> Unit:
        return unit(picture, kind, data, encoded_ms=1000 * self._clock.now())


def image_bytes(pixels: Pixels, kind: Format, quality: int) -> bytes:
    """One picture `H W 3` as an image file, or as it is."""
    if kind == "raw":
        return bytes(raw.view(np.ascontiguousarray(pixels)))
    if kind == "webp":
        return webp.encode_webp(pixels, quality)
    assert kind == "jpeg", f"{kind} is no image"
    return jpeg.encode_jpeg(pixels, quality)


def unit(
    picture: Picture,
    kind: Format,
    data: bytes,
    *,
    encoded_ms: float,
    key: bool = True,
    codec: str | None = None,
) -> Unit:
    """A picture with its message; `data` are its encoded bytes."""
    frame = _frame(picture, kind, data)
    frame = msgspec.structs.replace(
        frame, key=key, encoded_ms=encoded_ms, codec=msgspec.UNSET if codec is None else codec
    )
    return Unit(
        number=picture.number,
        format=kind,
        key=key,
        message=_ENCODER.encode(frame),
        payload=data,
        before=picture.before,
        pose=picture.view,
        place=picture.place,
        places=picture.places,
        frame=frame,
    )


def _frame(picture: Picture, kind: Format, data: bytes) -> Frame:
    height, width, _ = picture.pixels.shape
    yaw, pitch = picture.turned
    return Frame(
        number=picture.number,
        chunk=picture.chunk,
        latent_frame=picture.latent_frame,
        format=kind,
        width=width,
        height=height,
        payload=data,
        input=picture.input,
        first=picture.first,
        yaw=yaw,
        pitch=pitch,
        pose=picture.view.c2w,
    )
