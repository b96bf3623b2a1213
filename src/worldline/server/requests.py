"""From an `init` message to a session that can be opened: every field checked, sizes answered.

A field that cannot be honoured is a typed error with what was expected; what the mainline endpoint
accepts without effect (steps, guidance, generator device and the like) is ignored here too. See
docs/protocol.md for the list.

The picture is decoded to prove that it can be, and again once there is a seat: visitors who wait
cost the bytes they sent and not the pixels these unpack to.
"""

from __future__ import annotations

import functools
import re
from concurrent.futures import Executor

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import ConfigError, InvalidInitError
from worldline.core.events import Init
from worldline.media.image import decode_image, picture_bytes
from worldline.runtime.protocol import OpenRequest
from worldline.server.encoding import OutputFormat
from worldline.server.inbox import check_prompt
from worldline.server.waiting import in_thread

DEFAULT_SEED = 42
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


class Playback(msgspec.Struct, frozen=True, kw_only=True):
    """How chunks leave. `fps` paces only; `max_chunks` None runs until the visitor leaves."""

    output: OutputFormat
    fps: int
    pacing: bool
    max_chunks: int | None


class LiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request: `picture` is the file as it came, sizes are those of the session."""

    picture: bytes
    prompt: str
    seed: int
    width: int
    height: int
    window: int | None
    sink: int | None
    playback: Playback


async def read_request(
    init: Init, *, info: WorldInfo, config: ServerConfig, pool: Executor
) -> LiveRequest:
    """Check `init` against the model, and its picture in a thread of `pool`.

    Raises: InvalidInitError, ConfigError, PromptError, ImageError.
    """
    check_prompt(init.prompt, config.max_prompt_chars)
    _check_extras(init)
    _check_window(init, info)
    width, height = nearest_size(init.size, info)
    picture = picture_bytes(init.first_frame)
    await _decode(picture, config, pool)
    return LiveRequest(
        picture=picture,
        prompt=init.prompt,
        seed=DEFAULT_SEED if init.seed is None else init.seed,
        width=width,
        height=height,
        window=init.realtime_causal_kv_cache_num_frames,
        sink=init.realtime_causal_sink_size,
        playback=Playback(
            output=_output(init),
            fps=init.fps or info.fps,
            pacing=bool(init.realtime_output_pacing),
            max_chunks=init.max_chunks,
        ),
    )


async def to_open(
    request: LiveRequest, *, session_id: str, config: ServerConfig, pool: Executor
) -> OpenRequest:
    """What the engine is asked, with the picture's pixels. Raises: ImageError."""
    image = await _decode(request.picture, config, pool)  # H W 3
    return OpenRequest(
        session_id=session_id,
        image=image.tobytes(),
        image_width=image.shape[1],
        image_height=image.shape[0],
        prompt=request.prompt,
        seed=request.seed,
        width=request.width,
        height=request.height,
        window=request.window,
        sink=request.sink,
    )


def nearest_size(size: str | None, info: WorldInfo) -> tuple[int, int]:
    """The model's size (width, height) nearest to a wish "WIDTHxHEIGHT" of the same orientation.

    None asks for the model's own size. Only sizes the model was made for are answered, so a wish
    need not be a multiple of anything. Raises: InvalidInitError for another form.
    """
    if size is None:
        return info.width, info.height
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InvalidInitError("the size cannot be read", expected="WIDTHxHEIGHT", got=repr(size))
    width, height = int(match[1]), int(match[2])
    sizes = info.sizes or ((info.width, info.height),)
    same = [s for s in sizes if (s[0] >= s[1]) == (width >= height)]
    return min(same or sizes, key=lambda s: (s[0] - width) ** 2 + (s[1] - height) ** 2)


async def _decode(picture: bytes, config: ServerConfig, pool: Executor) -> NDArray[np.uint8]:
    read = functools.partial(decode_image, picture, max_pixels=config.max_image_pixels)
    return await in_thread(pool, read)


def _output(init: Init) -> OutputFormat:
    return OutputFormat(
        kind=init.realtime_output_format or "raw",
        quality=init.output_compression or 0,
        preview_width=init.realtime_preview_max_width or None,
    )


def _check_extras(init: Init) -> None:
    for name in ("enable_upscaling", "enable_frame_interpolation"):
        if getattr(init, name):
            raise ConfigError(f"{name} is not offered", expected="false or absent", got="true")


def _check_window(init: Init, info: WorldInfo) -> None:
    """Refuse a window that cannot hold its sink and one chunk, before a seat is asked for."""
    window = init.realtime_causal_kv_cache_num_frames or info.window
    sink = info.sink if init.realtime_causal_sink_size is None else init.realtime_causal_sink_size
    if 0 < window < sink + info.chunk:
        raise ConfigError(
            "the window is too small",
            expected=f"at least sink + chunk = {sink} + {info.chunk} latent frames",
            got=window,
        )
