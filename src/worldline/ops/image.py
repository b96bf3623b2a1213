"""Pictures in and frames out: sizes that fit the model, resizing, uint8 <-> [-1, 1]."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from worldline.core.errors import ConfigError, ImageError, ShapeError


def fit_size(
    width: int, height: int, area_width: int, area_height: int, *, patch: int = 16
) -> tuple[int, int]:
    """Size `(W, H)` in pixels for a `width x height` picture in an area of so many pixels.

    Keeps the picture's aspect as far as multiples of `patch` allow, rounding both sides down:
    a 16:9 picture in 832x480 becomes 832x464 (section 6 of the model facts). Raises ImageError for
    an empty picture or one so narrow that a side would vanish, ConfigError for an area that holds
    no patch.
    """
    if width < 1 or height < 1:
        raise ImageError("picture is empty", expected="at least 1x1", got=f"{width}x{height}")
    if area_width < 1 or area_height < 1 or area_width * area_height < patch * patch:
        raise ConfigError(
            "area is too small",
            expected=f"at least {patch}x{patch}",
            got=f"{area_width}x{area_height}",
        )
    # In this order: the reference computes in doubles, and a product that lands just under a
    # multiple of the patch rounds down by a whole patch.
    aspect = height / width
    area = area_width * area_height
    fitted_height = int(math.sqrt(area * aspect) // patch) * patch
    fitted_width = int(math.sqrt(area / aspect) // patch) * patch
    if fitted_width == 0 or fitted_height == 0:
        raise ImageError(
            "picture is too narrow",
            expected=f"both sides at least {patch} pixels in {area_width}x{area_height}",
            got=f"{width}x{height}",
        )
    return fitted_width, fitted_height


def image_to_tensor(
    rgb: NDArray[np.uint8], width: int, height: int, *, antialias: bool, crop: bool
) -> Tensor:
    """Turn a picture `[H, W, 3]` uint8 into `[1, 3, 1, height, width]` float32 around [-1, 1].

    The reference stretches with plain bicubic (`antialias` and `crop` false); live sessions cut the
    centre to the wanted aspect first and filter while shrinking (both true). Bicubic may overshoot
    the range a little at sharp edges; the reference does not clamp and neither does this. Raises
    ImageError for an empty picture, another shape or another dtype.
    """
    _check_picture(rgb)
    if width < 1 or height < 1:
        raise ImageError("no such size", expected="at least 1x1", got=f"{width}x{height}")
    if crop:
        rgb = _crop_to_aspect(rgb, width, height)
    # A copy: the array may be a read-only view of a message.
    picture = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).unsqueeze(0)  # 1 3 H W
    picture = picture.float().div(255).sub(0.5).div(0.5)
    picture = F.interpolate(
        picture, size=(height, width), mode="bicubic", align_corners=False, antialias=antialias
    )
    return picture.unsqueeze(2)  # 1 3 1 H W


def to_uint8(video: Tensor) -> Tensor:
    """Turn one clip `video [1, 3, F, H, W]` in [-1, 1] into frames `[F, H, W, 3]` uint8, rounded.

    Stays on the device of `video`. Raises ShapeError for another shape or more than one clip.
    """
    if video.ndim != 5 or video.shape[0] != 1 or video.shape[1] != 3:
        raise ShapeError("not one clip of frames", expected="[1, 3, F, H, W]", got=[*video.shape])
    frames = video[0].permute(1, 2, 3, 0).float()  # F H W 3
    return frames.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).contiguous()


def _check_picture(rgb: NDArray[np.uint8]) -> None:
    fits = rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8
    if not fits or rgb.size == 0:
        raise ImageError(
            "picture cannot be used",
            expected="uint8 [H, W, 3], not empty",
            got=f"{rgb.dtype} {list(rgb.shape)}",
        )


def _crop_to_aspect(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Cut the largest centred window of aspect `width:height` out of `rgb [H, W, 3]`."""
    rows, columns = rgb.shape[:2]
    wide = min(columns, max(1, round(rows * width / height)))
    tall = min(rows, max(1, round(columns * height / width)))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return rgb[top : top + tall, left : left + wide]
