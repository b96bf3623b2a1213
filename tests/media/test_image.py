"""Start pictures from outside: what is read, what is refused, and that refusing costs no memory."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from worldline.core.errors import ImageError
from worldline.media.image import decode_image, picture_bytes


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)  # pyright: ignore
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of a few kilobytes that claims `width x height` pixels."""

    def part(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


def test_pixels_come_out_as_rgb() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 9
    assert np.array_equal(decode_image(encoded(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    decoded = decode_image(encoded(Image.new("RGB", (8, 4), "white").convert(mode), kind))
    assert decoded.shape == (4, 8, 3)
    assert decoded.min() >= 250


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((4, 8), 0x8000, dtype=np.uint16))
    assert decode_image(encoded(deep)).max() == 0x80


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)
    assert decode_image(data).shape == (8, 4, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not a picture at all", "no known format"),
        (encoded(Image.new("RGB", (64, 64), (9, 120, 7)), "JPEG")[:200], "broken|no known format"),
        (encoded(Image.effect_noise((64, 64), 90))[:900], "broken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known format"),
        (encoded(Image.new("RGB", (640, 4))), "narrow"),
    ],
)
def test_unusable_pictures_are_typed_errors(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_image(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 10_000), (12_500, 8_000), (30_000, 30_000)])
def test_a_bomb_is_refused_before_its_pixels_are_allocated(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(picture: ImageFile.ImageFile) -> None:
        raise AssertionError(f"rows of {picture.size} were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(ImageError, match="too large"):
        decode_image(bomb(*size))


def test_data_urls_are_read() -> None:
    data = encoded(Image.new("RGB", (4, 4)))
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert picture_bytes(url) == data
    assert picture_bytes(data) is data


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("/etc/passwd", "paths and URLs"),
        ("file:///etc/passwd", "paths and URLs"),
        ("https://example.org/a.png", "paths and URLs"),
        ("data:image/png,plain", "paths and URLs"),
        ("data:image/png;base64,****", "not base64"),
        (None, "required"),
        (7, "required"),
        ([1], "required"),
    ],
)
def test_nothing_is_fetched(given: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        picture_bytes(given)
