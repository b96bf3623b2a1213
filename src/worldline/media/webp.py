"""One frame to lossy WebP with the fastest method (0)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEFAULT_QUALITY = 90


def encode_webp(frame: NDArray[np.uint8], quality: int = DEFAULT_QUALITY) -> bytes:
    """`frame` (RGB `H W 3`) as a WebP file; `quality` 1 to 100."""
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "WEBP", quality=quality, method=0)
    return out.getvalue()
