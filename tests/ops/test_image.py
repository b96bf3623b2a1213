"""Picture sizes, resizing and the way back to uint8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldline.core.errors import ConfigError, ImageError, ShapeError
from worldline.ops.image import fit_size, image_to_tensor, to_uint8


@pytest.mark.parametrize(
    ("width", "height", "area", "expected"),
    [
        (1280, 720, (832, 480), (832, 464)),
        (720, 1280, (832, 480), (464, 832)),
        (1000, 1000, (832, 480), (624, 624)),
        (48, 32, (48, 32), (48, 32)),
        # In doubles the area times 480/832 is a hair under 480 squared; the reference rounds down.
        (832, 480, (832, 480), (832, 464)),
    ],
)
def test_fitted_size(
    width: int, height: int, area: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit_size(width, height, *area) == expected


@given(
    width=st.integers(32, 5000),
    height=st.integers(32, 5000),
    area=st.tuples(st.integers(128, 1280), st.integers(128, 1280)),
)
def test_fitted_size_is_whole_patches_of_the_aspect_within_the_area(
    width: int, height: int, area: tuple[int, int]
) -> None:
    try:
        w, h = fit_size(width, height, *area)
    except ImageError:
        assert max(width / height, height / width) > area[0] * area[1] / 16**2 / 2
        return
    assert w % 16 == h % 16 == 0
    assert w * h <= area[0] * area[1]
    assert (w + 16) * (h + 16) > area[0] * area[1]
    assert w / (h + 16) < width / height < (w + 16) / h


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (-3, 10), (100_000, 1)])
def test_pictures_without_a_size_are_refused(width: int, height: int) -> None:
    with pytest.raises(ImageError):
        fit_size(width, height, 832, 480)


def test_area_without_a_patch_is_refused() -> None:
    with pytest.raises(ConfigError):
        fit_size(10, 10, 8, 8)
    with pytest.raises(ConfigError):
        fit_size(10, 10, -832, -480)


def gradient(height: int, width: int) -> np.ndarray:
    """A picture that darkens to the right and reddens downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 255 // max(1, height - 1), 255 - columns * 255 // max(1, width - 1)
    return np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.uint8)


def test_a_picture_of_the_right_size_keeps_its_values() -> None:
    picture = gradient(32, 48)
    for antialias in (False, True):
        tensor = image_to_tensor(picture, 48, 32, antialias=antialias, crop=False)
        assert tensor.shape == (1, 3, 1, 32, 48) and tensor.dtype == torch.float32
        expected = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
        assert torch.equal(to_uint8(tensor), torch.from_numpy(picture)[None])


def cubic(distance: float) -> float:
    """Weight of the cubic convolution kernel with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


@pytest.mark.parametrize("width", [40, 128])
def test_plain_resize_is_cubic_convolution_between_pixel_centres(width: int) -> None:
    line = np.random.default_rng(5).integers(0, 256, 64, dtype=np.uint8)
    picture = np.broadcast_to(line[None, :, None], (16, 64, 3))
    tensor = image_to_tensor(picture, width, 16, antialias=False, crop=False)
    for x in range(width):
        centre = (x + 0.5) * 64 / width - 0.5
        near = range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3)
        value = sum(float(line[min(max(i, 0), 63)]) * cubic(centre - i) for i in near)
        assert tensor[0, 1, 0, 8, x].item() == pytest.approx(value / 127.5 - 1, abs=1e-4)


def test_shrinking_without_filter_aliases_and_with_filter_does_not() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    plain = image_to_tensor(stripes, 16, 16, antialias=False, crop=False)
    smooth = image_to_tensor(stripes, 16, 16, antialias=True, crop=False)
    grey = torch.full_like(smooth, 0.25 * 2 - 1)
    torch.testing.assert_close(smooth[..., 2:-2], grey[..., 2:-2], atol=0.03, rtol=0)
    assert (plain[..., 2:-2] - grey[..., 2:-2]).abs().max() > 0.3


def test_crop_keeps_the_centre_and_the_proportions() -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 200
    square = image_to_tensor(picture, 40, 40, antialias=True, crop=True)
    assert (to_uint8(square) == 200).all()
    stretched = image_to_tensor(picture, 40, 40, antialias=True, crop=False)
    assert (to_uint8(stretched)[0, 20, 0] == 0).all()
    tall = image_to_tensor(picture.transpose(1, 0, 2), 40, 40, antialias=True, crop=True)
    assert torch.equal(square, tall.transpose(-1, -2))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    target=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    crop=st.booleans(),
)
def test_every_size_becomes_the_wanted_one(
    height: int, width: int, target: tuple[int, int], crop: bool
) -> None:
    w, h = target[0] * 16, target[1] * 16
    tensor = image_to_tensor(gradient(height, width), w, h, antialias=crop, crop=crop)
    assert tensor.shape == (1, 3, 1, h, w)
    assert bool(tensor.isfinite().all()) and tensor.abs().max() < 1.5


def test_a_read_only_view_is_fine_and_stays_unchanged() -> None:
    raw = gradient(20, 20).tobytes()
    picture = np.frombuffer(raw, np.uint8).reshape(20, 20, 3)
    image_to_tensor(picture, 16, 16, antialias=True, crop=True)
    assert picture.tobytes() == raw


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda picture: f"{picture.dtype}-{picture.shape}",
)
def test_other_arrays_are_refused_with_expected_and_got(picture: np.ndarray) -> None:
    with pytest.raises(ImageError) as refused:
        image_to_tensor(picture, 16, 16, antialias=True, crop=True)
    assert refused.value.expected and refused.value.got


def test_frames_are_rounded_and_clamped() -> None:
    values = torch.tensor([-2.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 1.0, 1.7])
    video = values.view(1, 1, 1, 1, 7).expand(1, 3, 2, 1, 7)
    frames = to_uint8(video)
    assert frames.shape == (2, 1, 7, 3) and frames.dtype == torch.uint8
    assert frames.is_contiguous()
    assert frames[1, 0, :, 2].tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_every_uint8_value_comes_back() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    video = (values.float() / 255 - 0.5) / 0.5
    assert torch.equal(
        to_uint8(video.view(1, 1, 1, 16, 16).expand(1, 3, 1, 16, 16))[0, :, :, 0],
        values.view(16, 16),
    )


@pytest.mark.parametrize("shape", [(2, 3, 1, 4, 4), (1, 4, 1, 4, 4), (3, 1, 4, 4)])
def test_other_videos_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        to_uint8(torch.zeros(shape))
