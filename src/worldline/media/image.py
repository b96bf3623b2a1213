"""A start picture from outside to RGB pixels, with every limit checked before memory is taken.

The header alone decides: number of pixels, shape and format are known before the first row is
decoded. Nothing is ever fetched: a picture is bytes or a `data:` URL, never a path or another URL.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from worldline.core.errors import ImageError

MAX_PIXELS: Final = 40_000_000
MAX_ASPECT: Final = 16  # a sliver would explode when it is fitted to the world's size
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


def picture_bytes(first_frame: object) -> bytes:
    """The encoded file of a picture given as bytes or as a base64 `data:` URL.

    Raises: ImageError for anything else, also for paths and other URLs.
    """
    if isinstance(first_frame, bytes):
        return first_frame
    if not isinstance(first_frame, str):
        raise ImageError(
            "a start picture is required",
            expected="bytes of an image file, or a data: URL",
            got=type(first_frame).__name__,
        )
    head, comma, body = first_frame.partition(",")
    if not (comma and head.lower().startswith("data:") and head.lower().endswith(";base64")):
        raise ImageError(
            "paths and URLs are not read",
            expected="bytes of an image file, or a base64 data: URL",
            got=repr(first_frame[:40]),
        )
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("the data: URL is not base64", got=str(error)) from error


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An encoded picture as RGB uint8 `[H, W, 3]`, turned upright by its EXIF orientation.

    Raises: ImageError when it is empty, unreadable, of another format, larger than `max_pixels`, or
    longer than 16 times its short side.
    """
    if not data:
        raise ImageError("the picture is empty", expected=", ".join(FORMATS), got="0 bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(picture.size, max_pixels)
            return _to_rgb(picture)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            "the picture is too large", expected=f"at most {max_pixels} pixels", got=str(error)
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            "the picture is of no known format",
            expected=", ".join(FORMATS),
            got=f"{len(data)} bytes that start with {data[:8].hex(' ')}",
        ) from error
    except Exception as error:  # decoders raise whatever they like on broken files
        raise ImageError("the picture is broken", got=f"{type(error).__name__}: {error}") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            "the picture is too large",
            expected=f"at most {max_pixels} pixels",
            got=f"{width}x{height}",
        )
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(
            "the picture is too narrow",
            expected=f"sides of at most {MAX_ASPECT}:1",
            got=f"{width}x{height}",
        )


def _to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16-bit grey: convert() would clip instead of scaling
        grey = np.asarray(upright, dtype=np.uint32) >> 8  # H W
        upright = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return np.array(upright.convert("RGB"), dtype=np.uint8)  # H W 3
