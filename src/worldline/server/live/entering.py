"""From `enter` to what a world can be made of: every field checked, the size answered.

The picture is decoded once to prove that it can be, and again when there is a seat: visitors who
wait cost the bytes they sent and not the pixels these unpack to.
"""

from __future__ import annotations

import functools
from concurrent.futures import Executor

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.live.client import Enter
from worldline.media.image import decode_image
from worldline.server.inbox import check_prompt
from worldline.server.requests import check_window, nearest_of
from worldline.server.waiting import in_thread

Pixels = NDArray[np.uint8]


def checked(enter: Enter, *, info: WorldInfo, config: ServerConfig) -> Enter:
    """The same wish with a size the model has. Raises: PromptError, ConfigError."""
    check_prompt(enter.prompt, config.max_prompt_chars)
    check_window(enter.window, enter.sink, info)
    wish = (enter.width or info.width, enter.height or info.height)
    width, height = nearest_of(wish, info)
    return msgspec.structs.replace(enter, width=width, height=height)


async def prove(enter: Enter, *, config: ServerConfig, pool: Executor) -> None:
    """Decode the picture and keep nothing of it. Raises: ImageError."""
    await in_thread(pool, functools.partial(_prove, enter.image, config.max_image_pixels))


async def pixels(enter: Enter, *, config: ServerConfig, pool: Executor) -> Pixels:
    """The picture, uint8 `H W 3`, RGB. Raises: ImageError."""
    call = functools.partial(decode_image, enter.image, max_pixels=config.max_image_pixels)
    return await in_thread(pool, call)


def _prove(image: bytes, max_pixels: int) -> None:
    decode_image(image, max_pixels=max_pixels)
