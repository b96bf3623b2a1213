"""A decoded frame with what the wire says about it, and how notebooks show it."""

from __future__ import annotations

import base64
import io
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldline.core.live.server import Frame


class Picture:
    """One frame of a world. `pixels` are uint8 `H W 3`, RGB; times in ms of our clock.

    `number` counts from the world's start, `input` is the newest input it shows, `yaw` and `pitch`
    the degrees turned since the start, right and up; `pose` is camera-to-world `3 4` since the
    start, or None where the server does not say. `number / fps` is its place in the film.
    """

    def __init__(self, frame: Frame, pixels: NDArray[np.uint8], received_ms: float) -> None:
        self.pixels = pixels
        self.number = frame.number
        self.chunk = frame.chunk
        self.latent_frame = frame.latent_frame
        self.input = frame.input
        self.yaw = frame.yaw
        self.pitch = frame.pitch
        self.pose = np.array(frame.pose).reshape(3, 4) if _is_pose(frame.pose) else None
        self.format = frame.format
        self.encoded_ms = frame.encoded_ms
        self.received_ms = received_ms

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Picture({width}x{height}, number={self.number}, input={self.input})"

    def image(self) -> Image.Image:
        """The same pixels for Pillow."""
        return Image.fromarray(self.pixels)

    def png(self) -> bytes:
        """The same pixels as a PNG file."""
        out = io.BytesIO()
        self.image().save(out, "PNG")
        return out.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        return html_of(self)


def _is_pose(pose: object) -> bool:
    return isinstance(pose, tuple) and len(cast("tuple[float, ...]", pose)) == 12


def html_of(picture: Picture) -> str:
    """An `img` element with the picture inside, for notebooks."""
    data = base64.b64encode(picture.png()).decode()
    height, width = picture.pixels.shape[:2]
    note = f"frame {picture.number}, input {picture.input}"
    return (
        f'<img width="{width}" height="{height}" alt="{note}" title="{note}" '
        f'src="data:image/png;base64,{data}">'
    )
