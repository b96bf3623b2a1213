"""Stretches of a film: complete in themselves, joined to one file, near to what went in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from worldline.core.errors import ConfigError, ShapeError
from worldline.media.fragmented import FragmentedMp4, Sample, sets_of
from worldline.media.scene import decode_picture, encode_scene

FPS = 16


def pictures(count: int, *, seed: int = 0, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture that drifts."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin((x + 3 * i + 5 * c) / 9 + seed) + np.cos(y / 7)
        for i in range(count)
        for c in (0, 1, 2)
    ]
    stack = np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    return (127 + 60 * stack).clip(0, 255).astype(np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def append(out: io.BytesIO, frames: NDArray[np.uint8], first: int, film: FragmentedMp4) -> None:
    units = encode_scene(frames, FPS)
    samples = [Sample(unit, i == 0, first + i) for i, unit in enumerate(units)]
    film.write(samples, first + len(frames))


def test_a_film_goes_on_where_another_writer_left_it() -> None:
    one, two = pictures(5), pictures(8, seed=2)
    out = io.BytesIO()
    append(out, one, 0, FragmentedMp4(out, FPS))
    sets = sets_of(out.getvalue())
    append(out, two, 5, FragmentedMp4(out, FPS, fragments=1, sets=sets))
    whole = io.BytesIO()
    film = FragmentedMp4(whole, FPS)
    append(whole, one, 0, film)
    append(whole, two, 5, film)
    assert out.getvalue() == whole.getvalue()
    for number, picture in enumerate([*one, *two]):
        assert psnr(decode_picture(out.getvalue(), number), picture) > 38
    with pytest.raises(ShapeError):
        decode_picture(out.getvalue(), 13)


def test_a_stretch_can_be_read_without_the_others() -> None:
    out = io.BytesIO()
    film = FragmentedMp4(out, FPS)
    append(out, pictures(5), 0, film)
    head_and_first = len(out.getvalue())
    append(out, pictures(8, seed=2), 5, film)
    data = out.getvalue()
    head = data[: data.index(b"moof") - 4]
    alone = head + data[head_and_first:]
    assert psnr(decode_picture(alone, 3), pictures(8, seed=2)[3]) > 38


def test_what_is_no_film_has_no_sets() -> None:
    for data in (b"", b"RIFF", b"\x00\x00\x00\x10ftypavcC", b"\x00" * 64):
        with pytest.raises(ShapeError):
            sets_of(data)


def test_odd_sizes_and_other_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="even"):
        encode_scene(pictures(2, width=33), FPS)
    with pytest.raises(ShapeError):
        encode_scene(pictures(2)[0], FPS)
    with pytest.raises(ShapeError):
        encode_scene(pictures(2)[:0], FPS)
