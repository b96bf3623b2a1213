"""Decoding what clients send: as lax as the published browser client needs, and no laxer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldline.core.errors import InvalidEventError, InvalidInitError, ProtocolError
from worldline.core.events import (
    CameraScript,
    Event,
    HeldKeys,
    Init,
    PromptText,
    decode_message,
    parse_event,
    script_from_init,
)

pack = msgspec.msgpack.encode
ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SMALLEST = {"type": "init", "prompt": "a lake"}


def init_of(**fields: Any) -> Init:
    message = decode_message(pack({**SMALLEST, **fields}))
    assert isinstance(message, Init)
    return message


def event_of(kind: str, payload: Any, **fields: Any) -> Event:
    message = decode_message(pack({"type": "event", "kind": kind, "payload": payload, **fields}))
    assert isinstance(message, Event)
    return message


@pytest.mark.parametrize("number", [70_000, 70_000.0])
def test_an_integral_float_is_an_int(number: float) -> None:
    init = init_of(seed=number, fps=25.0)
    assert (init.seed, init.fps) == (70_000, 25)
    assert {type(init.seed), type(init.fps)} == {int}
    assert event_of("prompt", "x", event_id=number).event_id == 70_000
    held = {"mode": "state", "transitions": [{"actions": ["w"], "client_ts_ms": 1.7636e12}]}
    (keys,) = parse_event(event_of("camera_actions", held))
    assert isinstance(keys, HeldKeys)
    assert keys.transitions[0].client_ts_ms == 1_763_600_000_000


@pytest.mark.parametrize("value", [70_000.5, float("nan"), float("inf"), 1e300, True, [], "x"])
@pytest.mark.parametrize("field", ["seed", "fps", "max_chunks"])
def test_other_numbers_are_errors(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=field):
        init_of(**{field: value})


@pytest.mark.parametrize("value", [70_000.5, -1, -1.0, 2**32, 2.0**40, True, "x"])
def test_event_ids_must_be_echoable(value: Any) -> None:
    with pytest.raises(ProtocolError, match="event_id"):
        event_of("prompt", "x", event_id=value)


def test_a_fraction_of_a_millisecond_is_an_error() -> None:
    held = {"mode": "state", "transitions": [{"actions": [], "client_ts_ms": 70_000.5}]}
    with pytest.raises(InvalidEventError, match=r"transitions\[0\]"):
        parse_event(event_of("camera_actions", held))


def test_unknown_fields_and_nulls_are_ignored() -> None:
    init = init_of(trace_id="t", artc={"x": 1}, seed=None, size=None, guidance_scale=1.5)
    assert (init.seed, init.size) == (None, None)
    assert event_of("prompt", "x", client_sent_perf_ms=1.5).kind == "prompt"


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa4type", b"\x91" * 200_000, b"\x05"]
)
def test_what_is_no_message_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_message(data)


@ANY_SPEED
@given(st.binary(max_size=200))
def test_random_bytes_never_escape_the_error_tree(data: bytes) -> None:
    try:
        message = decode_message(data)
        if isinstance(message, Event):
            parse_event(message)
    except ProtocolError:
        pass


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["state", "w", "prompt", "camera_actions"])
)
KEYS = st.sampled_from(["mode", "transitions", "actions", "input_types", "prompt", "x"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner | st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3)


JSONISH = nested(nested(nested(LEAF)))


@ANY_SPEED
@given(st.sampled_from(["camera_actions", "prompt", "composite_input", "fly"]), JSONISH)
def test_any_payload_is_read_or_refused(kind: str, payload: Any) -> None:
    event = event_of(kind, payload)
    try:
        inputs = parse_event(event)
    except InvalidEventError:
        return
    assert all(isinstance(value, CameraScript | HeldKeys | PromptText) for value in inputs)


@ANY_SPEED
@given(st.dictionaries(st.sampled_from(sorted(Init.__struct_fields__)), JSONISH, max_size=4))
def test_any_init_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        init = init_of(**fields)
        script_from_init(init)
    except ProtocolError:
        return
    assert init.seed is None or 0 <= init.seed < 2**63


def test_scripts_and_held_keys() -> None:
    (script,) = parse_event(event_of("camera_actions", [["w"], [], ["a", "j"]]))
    assert script == CameraScript((("w",), (), ("a", "j")))
    held = {"mode": "state", "transitions": [{"actions": ["w"]}, {"actions": []}]}
    (keys,) = parse_event(event_of("camera_actions", held))
    assert isinstance(keys, HeldKeys)
    assert [t.actions for t in keys.transitions] == [("w",), ()]


def test_a_composite_keeps_its_order() -> None:
    payload = {
        "prompt": "rain",
        "camera_actions": [["w"]],
        "input_types": ["camera_actions", "prompt"],
    }
    inputs = parse_event(event_of("composite_input", payload))
    assert inputs == (CameraScript((("w",),)), PromptText("rain"))


def test_a_script_in_the_init() -> None:
    assert script_from_init(init_of()) is None
    init = init_of(condition_inputs={"camera_actions": [["w"], []], "other": 1})
    assert script_from_init(init) == CameraScript((("w",), ()))
    with pytest.raises(InvalidInitError):
        script_from_init(init_of(condition_inputs={"camera_actions": "w"}))
