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
from worldline.core.walk import WorldFile
from worldline.media.image import decode_image
from worldline.server.inbox import check_prompt
from worldline.server.live.files import usable
from worldline.server.requests import check_window, nearest_of
from worldline.server.waiting import in_thread

Pixels = NDArray[np.uint8]


def checked(enter: Enter, *, info: WorldInfo, config: ServerConfig) -> Enter:
    """The same wish with a size the model has; one with a file is checked when that is read.

    Raises: PromptError, ConfigError.
    """
    if enter.world is not None:
        return msgspec.structs.replace(enter, prompt="", image=b"")
    check_prompt(enter.prompt, config.max_prompt_chars)
    check_window(enter.window, enter.sink, info)
    wish = (enter.width or info.width, enter.height or info.height)
    width, height = nearest_of(wish, info)
    return msgspec.structs.replace(enter, width=width, height=height)


async def prove(enter: Enter, *, info: WorldInfo, config: ServerConfig, pool: Executor) -> None:
    """Read the file and decode the picture, and keep nothing of them.

    Raises: ImageError, WorldFileErrors, PromptError, ConfigError.
    """
    image = enter.image
    if (file := await file_of(enter, info=info, config=config, pool=pool)) is not None:
        image = file.start.picture
    await in_thread(pool, functools.partial(_prove, image, config.max_image_pixels))


async def file_of(
    enter: Enter, *, info: WorldInfo, config: ServerConfig, pool: Executor
) -> WorldFile | None:
    """The world file of a wish that has one, checked. Raises: as `prove`."""
    data = enter.world
    if data is None:
        return None
    return await in_thread(
        pool, lambda: usable(data, info=info, config=config, at_end=enter.at_end)
    )


async def pixels(enter: Enter, *, config: ServerConfig, pool: Executor) -> Pixels:
    """The picture, uint8 `H W 3`, RGB. Raises: ImageError."""
    call = functools.partial(decode_image, enter.image, max_pixels=config.max_image_pixels)
    return await in_thread(pool, call)


def _prove(image: bytes, max_pixels: int) -> None:
    decode_image(image, max_pixels=max_pixels)
