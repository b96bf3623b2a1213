"""Client to server: the messages of the mainline realtime endpoint, decoded and checked.

One binary WebSocket message is one MessagePack map. Decoding is lax where the published browser
client needs it: that client sends every number it cannot store in 16 bits as a float64, so an
integral float is an int and 70000.5 is an error. Unknown fields are ignored. Nothing here knows a
session: whether a well-formed message is welcome now is the server's business.

Source: facts on the realtime wire, sections 1.2, 1.4 and 1.5.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from worldline.core.errors import InvalidEventError, InvalidInitError, ProtocolError

UINT32_MAX = 2**32 - 1
EventId = Annotated[int, msgspec.Meta(ge=0, le=UINT32_MAX)]  # echoed, so it must fit the old client
Positive = Annotated[int, msgspec.Meta(ge=1, le=UINT32_MAX)]
NotNegative = Annotated[int, msgspec.Meta(ge=0, le=UINT32_MAX)]


class Init(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="init"):
    """The first message of a session. Fields that are absent here are ignored when they come.

    `first_frame` holds an encoded picture as bytes or as a `data:` URL; `size` is "WIDTHxHEIGHT" in
    pixels; `fps` only paces; `realtime_causal_*` are latent frames.
    """

    prompt: str
    model: str | None = None
    first_frame: Any = None
    size: str | None = None
    fps: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    max_chunks: Positive | None = None
    condition_inputs: dict[str, Any] | None = None
    realtime_output_format: Literal["raw", "webp", "jpeg"] | None = None
    realtime_preview_max_width: NotNegative | None = None
    output_compression: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    realtime_output_pacing: bool | None = None
    realtime_causal_sink_size: NotNegative | None = None
    realtime_causal_kv_cache_num_frames: Positive | None = None
    enable_upscaling: bool | None = None
    enable_frame_interpolation: bool | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="event"):
    """Something the visitor did; `payload` is read by `parse_event` once the kind is known."""

    kind: str
    payload: msgspec.Raw = msgspec.Raw()
    event_id: EventId | None = None


class Transition(msgspec.Struct, frozen=True):
    """The keys held from a moment on; an empty tuple means all were released."""

    actions: tuple[str, ...]
    client_ts_ms: int | None = None


class CameraScript(msgspec.Struct, frozen=True):
    """A finite script: one tuple of actions per latent frame."""

    actions: tuple[tuple[str, ...], ...]


class HeldKeys(msgspec.Struct, frozen=True):
    """Changes of the held keys, oldest first."""

    mode: Literal["state"]
    transitions: tuple[Transition, ...]


class PromptText(msgspec.Struct, frozen=True):
    """A new prompt, to be used from the next chunk that is prepared."""

    text: str


Input = CameraScript | HeldKeys | PromptText

_MESSAGE = msgspec.msgpack.Decoder(Init | Event, strict=False)
_CAMERA = msgspec.msgpack.Decoder(tuple[tuple[str, ...], ...] | HeldKeys, strict=False)
_SCRIPT = tuple[tuple[str, ...], ...]
_PROMPT = msgspec.msgpack.Decoder(str)
_COMPOSITE = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_NAMES = msgspec.msgpack.Decoder(tuple[str, ...])
# RecursionError: a message nested deeper than the decoder goes is malformed, not a crash.
_MALFORMED = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def decode_message(data: bytes) -> Init | Event:
    """One binary message as a typed value.

    Raises: ProtocolError when it is not a MessagePack map of a known `type` with fields that fit.
    """
    try:
        return _MESSAGE.decode(data)
    except _MALFORMED as error:
        raise ProtocolError(
            "the message cannot be read", expected="a MessagePack map", got=str(error)
        ) from error


def script_from_init(init: Init) -> CameraScript | None:
    """The camera script of `condition_inputs`, used from chunk 0 on; None without one.

    Raises: InvalidInitError when it is not a list of lists of strings.
    """
    given = (init.condition_inputs or {}).get("camera_actions")
    if given is None:
        return None
    try:
        return CameraScript(msgspec.convert(given, _SCRIPT))
    except msgspec.ValidationError as error:
        raise InvalidInitError(
            "condition_inputs.camera_actions cannot be read",
            expected="one list of action strings per latent frame",
            got=str(error),
        ) from error


def parse_event(event: Event) -> tuple[Input, ...]:
    """What an event asks for, in the order it must be applied; all of it is readable or none is.

    Raises: InvalidEventError for an unknown kind or a malformed payload.
    """
    try:
        if event.kind == "composite_input":
            return _composite(event.payload)
        return (_single(event.kind, event.payload),)
    except _MALFORMED as error:
        raise InvalidEventError(
            f"the payload of {event.kind[:40]!r} cannot be read", got=str(error)
        ) from error


def _single(kind: str, payload: msgspec.Raw) -> Input:
    if kind == "camera_actions":
        value = _CAMERA.decode(payload)
        return value if isinstance(value, HeldKeys) else CameraScript(value)
    if kind == "prompt":
        return _prompt(_PROMPT.decode(payload))
    raise InvalidEventError(
        "unknown event kind",
        expected="camera_actions, prompt or composite_input",
        got=repr(kind[:40]),
    )


def _prompt(text: str) -> PromptText:
    if not text.strip():
        raise InvalidEventError("the prompt is empty", expected="a non-empty string")
    return PromptText(text)


def _composite(payload: msgspec.Raw) -> tuple[Input, ...]:
    """Read every named input before any is applied, so that a bad one leaves no half behind."""
    fields = _COMPOSITE.decode(payload)
    if "input_types" not in fields:
        raise InvalidEventError("composite_input names no inputs", expected="input_types")
    names = _NAMES.decode(fields["input_types"])
    for name in names:
        if name == "composite_input" or name not in fields:
            raise InvalidEventError(
                "composite_input lacks a value it names", expected="a value", got=repr(name[:40])
            )
    return tuple(_single(name, fields[name]) for name in names)
