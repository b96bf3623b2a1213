"""Payloads to pixels. H.264 needs PyAV (`pip install "worldline[video]"`); the rest needs nothing.

One `Decoder` belongs to one world: H.264 remembers the frames before. What cannot be decoded is
None and a key frame is asked for, once, until one comes.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from worldline.core.errors import ImageError
from worldline.core.live.server import Frame
from worldline.core.live.shared import Format

Pixels = NDArray[np.uint8]
StartImage = str | Path | bytes | Image.Image | Pixels
PLAIN: Final[tuple[Format, ...]] = ("jpeg", "webp", "raw")


def known_formats() -> tuple[Format, ...]:
    """What can be decoded here, best first."""
    video: tuple[Format, ...] = ("h264",) if importlib.util.find_spec("av") else ()
    return (*video, *PLAIN)


def start_bytes(image: StartImage) -> bytes:
    """A start picture as a file: a path, bytes of a file, a Pillow image, or uint8 `H W 3`.

    Raises: ImageError.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ImageError("the start picture cannot be read", got=str(error)) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}"
            raise ImageError("not a picture", expected="uint8 H W 3", got=got)
        image = Image.fromarray(image)
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG")
    return out.getvalue()


class Decoder:
    """Turns the frames of one world into uint8 `H W 3`."""

    def __init__(self) -> None:
        self._video: Any = None
        self._asked = False

    def decode(self, frame: Frame) -> Pixels | None:
        """The pixels, or None for a frame that cannot be shown."""
        if frame.format == "h264":
            return self._video_frame(frame)
        self._video = None  # the next access unit will be a key frame
        self._asked = False
        if frame.format == "raw":
            return _raw(frame)
        try:
            return np.asarray(Image.open(io.BytesIO(frame.payload)).convert("RGB"))
        except (UnidentifiedImageError, OSError):
            return None

    def needs_key_frame(self) -> bool:
        """Whether to ask for one now; true once per broken stream."""
        ask, self._asked = self._video is None and not self._asked, True
        return ask

    def forget(self) -> None:
        """The stream ended; the next one begins with a key frame of its own."""
        self._video, self._asked = None, False

    def _video_frame(self, frame: Frame) -> Pixels | None:
        if self._video is None:
            if not frame.key:
                return None
            self._video, self._asked = _new_video(), False
        av = importlib.import_module("av")
        try:
            decoded = self._video.decode(av.Packet(frame.payload))
        except av.error.FFmpegError:
            self._video = None
            return None
        return decoded[-1].to_ndarray(format="rgb24") if decoded else None


def _new_video() -> Any:
    """A decoder that gives every frame at once."""
    context = importlib.import_module("av").CodecContext.create("h264", "r")
    context.thread_count = 1  # frame threads hold pictures back
    context.flags |= importlib.import_module("av.codec.context").Flags.low_delay
    return context


def _raw(frame: Frame) -> Pixels | None:
    """RGB as it is; a copy, so that the message can go."""
    if len(frame.payload) != frame.width * frame.height * 3:
        return None
    flat = np.frombuffer(frame.payload, np.uint8)
    return flat.reshape(frame.height, frame.width, 3).copy()
