"""From the body of `POST /v1/videos` to a film that can be made: every field checked.

JSON or a form, of the fields of OpenAI's interface and some of our own. What cannot be honoured is
a typed error; a field that there is not is one too, so that a typing error does not cost a film.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np

from worldline.core.actions import LOOK, WALK, parse_action_string
from worldline.core.chunk import PICTURES
from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import ConfigError, ControlError, ImageError, InputError
from worldline.core.trajectory import latent_frames
from worldline.media.image import decode_image, picture_bytes
from worldline.server.films.film import Wish, chunks_for, frames_of
from worldline.server.films.multipart import is_multipart, parse_multipart
from worldline.server.inbox import check_prompt
from worldline.server.requests import nearest_of

DEFAULT_SECONDS: Final = 4.0
DEFAULT_SEED: Final = 42
MOST_POSES: Final = 65_536
MOST_STEPS: Final = 200
_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
_NESTED: Final = ("poses", "input_reference")


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields as they come. `seconds` or `chunks` is how long, else as long as the path."""

    prompt: str
    model: str | None = None
    input_reference: Any = None
    seconds: float | None = None
    size: str | None = None
    seed: int = DEFAULT_SEED
    chunks: int | None = None
    actions: str | None = None
    poses: tuple[tuple[float, ...], ...] = ()
    rate: float | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    steps: int | None = None


class Read(NamedTuple):
    """A film that can be made, and its start picture as a file."""

    wish: Wish
    picture: bytes


def read_body(content_type: str, body: bytes) -> Asked:
    """The fields of a body. Raises: InputError."""
    if is_multipart(content_type):
        form = parse_multipart(content_type, body)
        values: Any = {name: _text(name, value) for name, value in form.items()}
    else:
        try:
            values = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError("the body is not JSON", expected="a JSON object", got=error) from None
    try:
        return msgspec.convert(values, Asked, strict=False)
    except msgspec.ValidationError as error:
        raise InputError("the body cannot be read", got=str(error)) from None


def read_film(asked: Asked, *, info: WorldInfo, config: ServerConfig) -> Read:
    """Check everything, the picture too. Raises: InputError of any kind. Takes a while."""
    if asked.model not in (None, info.model):
        raise ConfigError("this server has another model", expected=info.model, got=asked.model)
    check_prompt(asked.prompt, config.max_prompt_chars)
    if not 0 <= asked.seed <= 2**53:
        raise ConfigError("no such seed", expected="0 to 2**53", got=asked.seed)
    if asked.steps is not None and not 1 <= asked.steps <= min(info.steps, MOST_STEPS):
        raise ConfigError("no such number of steps", expected=f"1 to {info.steps}", got=asked.steps)
    if asked.guidance is not None or asked.negative_prompt is not None:
        raise ConfigError(f"{info.model} takes no guidance", expected="a model that is not live")
    keys = () if asked.actions is None else keys_of(asked.actions)
    length = _path_frames(asked, keys, info)
    chunks = _chunks(asked, length, info=info, config=config)
    width, height = _size(asked.size, info)
    picture = _picture(asked.input_reference)
    decode_image(picture, max_pixels=config.max_image_pixels)
    return Read(
        Wish(
            prompt=asked.prompt,
            seed=asked.seed,
            width=width,
            height=height,
            chunks=chunks,
            keys=keys,
            poses=asked.poses,
            rate=asked.rate or float(info.fps),
            steps=asked.steps,
        ),
        picture,
    )


def keys_of(actions: str) -> tuple[str, ...]:
    """Letters of each latent frame of an official action string, which counts pictures.

    The first latent frame is the start picture; what moves the camera to the next one are the keys
    held when that begins. Raises: ControlError.
    """
    keys = parse_action_string(actions)
    held = np.concatenate([keys.wasd, keys.ijkl], axis=1)[::PICTURES]  # T 8
    letters = WALK + LOOK
    return ("", *("".join(k for k, down in zip(letters, row, strict=True) if down) for row in held))


def _text(name: str, value: bytes) -> Any:
    """A field of a form: the picture as it is, the others as text, nested ones as JSON."""
    if name == "input_reference" and not value.startswith((b"data:", b"{")):
        return value
    try:
        text = value.decode("utf-8")
        return msgspec.json.decode(text) if name in _NESTED and text[:1] in "[{" else text
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"the field {name[:40]} cannot be read", got=error) from None


def _path_frames(asked: Asked, keys: tuple[str, ...], info: WorldInfo) -> int:
    """Latent frames that the path lasts; 0 without one."""
    if asked.poses and keys:
        raise ControlError("two camera paths", expected="either actions or poses")
    if not asked.poses:
        return len(keys)
    if len(asked.poses) > MOST_POSES or any(len(row) != 12 for row in asked.poses):
        raise ControlError("no path", expected=f"at most {MOST_POSES} rows of 12 numbers")
    if not all(math.isfinite(number) for row in asked.poses for number in row):
        raise ControlError("a path of other values than finite numbers")
    rate = asked.rate or float(info.fps)
    return 1 + latent_frames(len(asked.poses), rate=rate, latent_s=PICTURES / info.fps)


def _chunks(asked: Asked, path: int, *, info: WorldInfo, config: ServerConfig) -> int:
    """Whole chunks for the length that is asked for. Raises: ConfigError."""
    if asked.seconds is not None and asked.chunks is not None:
        raise ConfigError("two lengths", expected="either seconds or chunks")
    if asked.chunks is not None:
        chunks = asked.chunks
    elif asked.seconds is not None:
        if not 0 < asked.seconds < math.inf:
            raise ConfigError("no such length", expected="seconds above 0", got=asked.seconds)
        chunks = chunks_for(asked.seconds, info)
    else:
        chunks = -(-path // info.chunk) if path else chunks_for(DEFAULT_SECONDS, info)
    longest = max(1, int(config.max_film_s * info.fps / (PICTURES * info.chunk)))
    if not 1 <= chunks <= longest:
        seconds = frames_of(max(chunks, 1), info.chunk) / info.fps if chunks < 2**31 else math.inf
        raise ConfigError(
            "a film of this length is not made here",
            expected=f"1 to {longest} chunks, {config.max_film_s:g} s",
            got=f"{chunks} chunks, {seconds:.1f} s",
        )
    return chunks


def _size(size: str | None, info: WorldInfo) -> tuple[int, int]:
    """The model's size nearest to a wish WIDTHxHEIGHT. Raises: ConfigError."""
    if size is None:
        return info.width, info.height
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ConfigError("the size cannot be read", expected="WIDTHxHEIGHT", got=repr(size[:40]))
    return nearest_of((int(found[1]), int(found[2])), info)


def _picture(reference: Any) -> bytes:
    """The file of the start picture: bytes, base64, a data: URL, or `{"image_url": data: URL}`."""
    if isinstance(reference, dict):
        reference = cast("dict[str, Any]", reference).get("image_url")
    if reference is None:
        raise ImageError(
            "a start picture is required", expected="input_reference: a file, base64 or data: URL"
        )
    if not isinstance(reference, str) or ":" in reference[:16]:
        return picture_bytes(reference)
    try:
        return base64.b64decode(reference, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("the start picture is not base64", got=str(error)) from None
