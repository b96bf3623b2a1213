"""One frame to JPEG, without chroma subsampling.

simplejpeg (libjpeg-turbo, releases the GIL) when it is installed, else Pillow at the same settings.
"""

from __future__ import annotations

import importlib.util
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEFAULT_QUALITY = 95


def has_simplejpeg() -> bool:
    """Whether the faster encoder is installed."""
    return importlib.util.find_spec("simplejpeg") is not None


def encode_jpeg(frame: NDArray[np.uint8], quality: int = DEFAULT_QUALITY) -> bytes:
    """`frame` (RGB `H W 3`) as a JPEG file with 4:4:4 chroma; `quality` 1 to 100."""
    if not has_simplejpeg():
        return encode_with_pillow(frame, quality)
    import simplejpeg  # pyright: ignore[reportMissingTypeStubs]

    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def encode_with_pillow(frame: NDArray[np.uint8], quality: int = DEFAULT_QUALITY) -> bytes:
    """The same through Pillow: 4:4:4 chroma, `quality` 1 to 100."""
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
