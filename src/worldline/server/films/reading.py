"""From the body of `POST /v1/videos` to a film that can be made: every field checked.

JSON or a form, of the fields of OpenAI's interface and some of our own. What cannot be honoured is
a typed error; a field that there is not is one too, so that a typing error does not cost a film.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from worldline.core.actions import parse_action_string
from worldline.core.chunk import PICTURES
from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import ConfigError, ControlError, ImageError, InputError
from worldline.core.lora import Outfit, check_outfit, parse_outfit, parse_spec
from worldline.core.trajectory import as_poses, latent_frames
from worldline.media.image import decode_image, picture_bytes
from worldline.server.films.film import Wish, chunks_for
from worldline.server.films.multipart import is_multipart, parse_multipart
from worldline.server.inbox import check_prompt
from worldline.server.requests import nearest_of

DEFAULT_SECONDS: Final = 4.0
DEFAULT_SEED: Final = 42
MOST_POSES: Final = 65_536
MOST_STEPS: Final = 200
MOST_GUIDANCE: Final = 100.0
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
    solver: Literal["unipc", "dpm++"] | None = None
    loras: str | None = None


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
    most = info.steps if info.live else MOST_STEPS
    if asked.steps is not None and not 1 <= asked.steps <= most:
        raise ConfigError("no such number of steps", expected=f"1 to {most}", got=asked.steps)
    _check_guidance(asked, info=info, config=config)
    chunks = _chunks(asked, _path_pictures(asked, info), info=info, config=config)
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
            actions=asked.actions,
            poses=asked.poses,
            rate=asked.rate or float(info.fps),
            steps=asked.steps,
            negative_prompt=asked.negative_prompt,
            guidance=asked.guidance,
            solver=asked.solver,
            loras=_outfit(asked.loras, info),
        ),
        picture,
    )


def _text(name: str, value: bytes) -> Any:
    """A field of a form: the picture as it is, the others as text, nested ones as JSON."""
    if name == "input_reference" and not value.startswith((b"data:", b"{")):
        return value
    try:
        text = value.decode("utf-8")
        return msgspec.json.decode(text) if name in _NESTED and text[:1] in "[{" else text
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"the field {name[:40]} cannot be read", got=error) from None


def _outfit(loras: str | None, info: WorldInfo) -> Outfit | None:
    """Adapters by name; None where the request says nothing. Raises: ConfigError."""
    if loras is None:
        return None
    known = [parse_spec(spec)[0] for spec in info.options.loras]
    return check_outfit(parse_outfit(loras), known)


def _check_guidance(asked: Asked, *, info: WorldInfo, config: ServerConfig) -> None:
    """Raises: ConfigError, PromptError."""
    wishes = {"guidance": asked.guidance, "negative_prompt": asked.negative_prompt}
    wishes["solver"] = asked.solver
    named = [name for name, value in wishes.items() if value is not None]
    if info.live and named:
        raise ConfigError(
            f"{info.model} is distilled and takes none of that",
            expected="a base or pretrained model",
            got=", ".join(named),
        )
    if asked.guidance is not None and not 1.0 <= asked.guidance <= MOST_GUIDANCE:
        expected = f"1 (none) to {MOST_GUIDANCE:g}"
        raise ConfigError("unusable guidance", expected=expected, got=asked.guidance)
    if asked.negative_prompt:
        check_prompt(asked.negative_prompt, config.max_prompt_chars)


def _path_pictures(asked: Asked, info: WorldInfo) -> int:
    """Pictures that the path lasts; 0 without one. Raises: ControlError."""
    if asked.actions is not None:
        if asked.poses:
            raise ControlError("two camera paths", expected="either actions or poses")
        return 1 + len(parse_action_string(asked.actions).wasd)
    if not asked.poses:
        return 0
    if len(asked.poses) > MOST_POSES or any(len(row) != 12 for row in asked.poses):
        raise ControlError("no path", expected=f"at most {MOST_POSES} rows of 12 numbers")
    if not all(math.isfinite(number) for row in asked.poses for number in row):
        raise ControlError("a path of other values than finite numbers")
    rate = asked.rate or float(info.fps)
    if not info.live and rate != info.fps:
        raise ControlError("one pose for each picture", expected=f"rate {info.fps}", got=rate)
    frames = latent_frames(len(as_poses(asked.poses)), rate=rate, latent_s=PICTURES / info.fps)
    return 1 + PICTURES * frames


def _chunks(asked: Asked, path: int, *, info: WorldInfo, config: ServerConfig) -> int:
    """Whole chunks for the length that is asked for. Raises: ConfigError."""
    if asked.seconds is not None and asked.chunks is not None:
        raise ConfigError("two lengths", expected="either seconds or chunks")
    seconds = DEFAULT_SECONDS if asked.seconds is None else asked.seconds
    if not 0 < seconds < math.inf:
        raise ConfigError("no such length", expected="seconds above 0", got=seconds)
    longest = config.max_film_s
    if asked.chunks is not None:
        chunks = asked.chunks
    else:
        asked_s = seconds if asked.seconds is not None or not path else path / info.fps
        chunks = chunks_for(min(asked_s, 2 * longest) * info.fps, info)
    most = max(1, chunks_for(longest * info.fps, info))
    if not 1 <= chunks <= most:
        raise ConfigError(
            "a film of this length is not made here",
            expected=f"1 to {most} chunks, about {longest:g} s",
            got=f"{chunks} chunks",
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
