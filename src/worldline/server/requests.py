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

from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import ConfigError, InvalidInitError
from worldline.core.events import Init
from worldline.media.image import decode_image, picture_bytes
from worldline.runtime.protocol import OpenRequest
from worldline.server.encoding import OutputFormat
from worldline.server.inbox import check_prompt
from worldline.server.waiting import in_thread

DEFAULT_SEED = 42
MAX_WINDOW_FACTOR = 4  # a visitor may ask for a longer memory than the model's, within reason
MAX_WINDOW = 256  # latent frames, where the model's own window has no end
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
    check_window(init.realtime_causal_kv_cache_num_frames, init.realtime_causal_sink_size, info)
    width, height = nearest_size(init.size, info)
    picture = await in_thread(pool, functools.partial(_checked_picture, init.first_frame, config))
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
    height, width, pixels = await in_thread(
        pool, functools.partial(_pixels, request.picture, config)
    )
    return OpenRequest(
        session_id=session_id,
        image=pixels,
        image_width=width,
        image_height=height,
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
    return nearest_of((int(match[1]), int(match[2])), info)


def nearest_of(wish: tuple[int, int], info: WorldInfo) -> tuple[int, int]:
    """The model's size nearest to `wish`, width and height, of the same orientation if it can."""
    width, height = wish
    sizes = info.sizes or ((info.width, info.height),)
    same = [s for s in sizes if (s[0] >= s[1]) == (width >= height)]
    return min(same or sizes, key=lambda s: (s[0] - width) ** 2 + (s[1] - height) ** 2)


def _checked_picture(first_frame: object, config: ServerConfig) -> bytes:
    picture = picture_bytes(first_frame)
    decode_image(picture, max_pixels=config.max_image_pixels)
    return picture


def _pixels(picture: bytes, config: ServerConfig) -> tuple[int, int, bytes]:
    image = decode_image(picture, max_pixels=config.max_image_pixels)  # H W 3
    return image.shape[0], image.shape[1], image.tobytes()


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


def check_window(window: int | None, sink: int | None, info: WorldInfo) -> None:
    """Refuse a window that cannot hold its sink and one chunk, or that nobody has memory for.

    None is the model's own, in latent frames. Raises: ConfigError.
    """
    window = window or info.window
    sink = info.sink if sink is None else sink
    if 0 < window < sink + info.chunk:
        raise ConfigError(
            "the window is too small",
            expected=f"at least sink + chunk = {sink} + {info.chunk} latent frames",
            got=window,
        )
    limit = MAX_WINDOW_FACTOR * info.window if info.window > 0 else MAX_WINDOW
    if window > limit:
        raise ConfigError("the window is too large", expected=f"at most {limit}", got=window)
