"""Visitor input folded into chunks: single rules by hand, then all of them against a model."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.control import (
    ChunkControls,
    ControlState,
    push_composite,
    push_prompt,
    push_script,
    push_transitions,
    sample,
)
from worldline.core.errors import ControlError, PromptError
from worldline.core.events import CameraScript, HeldKeys, PromptText, Transition

IDLE = ControlState()
W, A, NONE = ("w",), ("a",), ()


def chunks(state: ControlState, frames: int, count: int) -> list[ChunkControls]:
    got: list[ChunkControls] = []
    for _ in range(count):
        state, controls = sample(state, frames)
        got.append(controls)
    return got


def started(state: ControlState = IDLE, frames: int = 3) -> ControlState:
    return sample(state, frames)[0]


def test_an_idle_visitor_gives_empty_actions_not_none() -> None:
    (chunk,) = chunks(IDLE, 3, 1)
    assert chunk == ChunkControls(actions=(NONE,) * 3, prompt=None, event_id=None, kinds=())


def test_a_script_drains_and_then_stays_neutral() -> None:
    state = push_script(IDLE, [["w"], ["d", "w"], [], ["i"]], 4)
    first, second, third = chunks(state, 3, 3)
    assert first.actions == (W, ("w", "d"), NONE)
    assert second.actions == (("i",), NONE, NONE)
    assert third.actions == (NONE,) * 3
    assert [chunk.event_id for chunk in (first, second, third)] == [4, 4, 4]
    assert [chunk.kinds for chunk in (first, second, third)] == [("camera_actions",)] * 2 + [()]


def test_a_held_key_goes_on_until_it_is_released() -> None:
    state, first = sample(push_transitions(IDLE, [["w"]], 1), 3)
    state, second = sample(state, 3)
    state, third = sample(push_transitions(state, [[]], 2), 3)
    assert first.actions == second.actions == (W,) * 3
    assert third.actions == (NONE,) * 3
    assert (first.event_id, second.event_id, third.event_id) == (1, 1, 2)
    assert third.kinds == ("camera_actions",)


def test_a_press_released_between_two_chunks_moves_one_frame() -> None:
    state = push_transitions(push_transitions(IDLE, [["w"]], 1), [[]], 2)
    first, second = chunks(state, 3, 2)
    assert first.actions == (W, NONE, NONE)
    assert second.actions == (NONE,) * 3
    assert (first.event_id, second.event_id) == (2, 2)


def test_several_presses_are_compacted_to_the_newest() -> None:
    state = push_transitions(IDLE, [["w"], [], ["a"], []], 7)
    assert chunks(state, 3, 1)[0].actions == (A, NONE, NONE)


def test_a_press_that_changed_into_another_gives_its_last_form() -> None:
    state = push_transitions(IDLE, [["w"], ["w", "d"]], 7)
    assert chunks(state, 2, 1)[0].actions == (("w", "d"),) * 2


def test_letting_one_of_two_keys_go_is_no_pulse() -> None:
    state = started(push_transitions(IDLE, [["w", "d"]], 1))
    assert sample(push_transitions(state, [["w"]], 2), 3)[1].actions == (W,) * 3


def test_in_a_chunk_of_one_frame_the_release_comes_with_the_next_chunk() -> None:
    state = push_transitions(push_transitions(IDLE, [["w"]], 1), [[]], 2)
    first, second = chunks(state, 1, 2)
    assert (first.actions, first.event_id) == ((W,), 1)
    assert (second.actions, second.event_id) == ((NONE,), 2)
    assert second.kinds == ("camera_actions",)


def test_a_transition_ends_a_script_and_a_script_ends_what_is_held() -> None:
    state = started(push_script(IDLE, [["w"]] * 9, 1))
    state, held = sample(push_transitions(state, [["a"]], 2), 3)
    assert held.actions == (A,) * 3
    state, script = sample(push_script(state, [["i"]], 3), 3)
    assert script.actions == (("i",), NONE, NONE)
    assert sample(state, 3)[1].actions == (NONE,) * 3


def test_a_new_script_replaces_the_rest_of_the_old_one() -> None:
    state = started(push_script(IDLE, [["w"]] * 9, 1))
    assert sample(push_script(state, [["a"]], 2), 3)[1].actions == (A, NONE, NONE)
    state, chunk = sample(push_script(state, [], 3), 3)
    assert (chunk.actions, chunk.event_id) == ((NONE,) * 3, 3)


def test_state_mode_without_a_change_only_ends_the_script() -> None:
    state = started(push_script(IDLE, [["w"]] * 9, 1))
    _, chunk = sample(push_transitions(state, [], 2), 3)
    assert (chunk.actions, chunk.event_id) == ((NONE,) * 3, 2)
    held = started(push_transitions(IDLE, [["w"]], 1))
    assert sample(push_transitions(held, [], 2), 3)[1].actions == (W,) * 3


def test_the_newest_prompt_is_used_once_and_never_in_chunk_0() -> None:
    state = push_prompt(push_prompt(IDLE, "rain", 1), "snow", 2)
    first, second, third = chunks(state, 3, 3)
    assert [chunk.prompt for chunk in (first, second, third)] == [None, "snow", None]
    assert [chunk.event_id for chunk in (first, second, third)] == [None, 2, 2]
    assert second.kinds == ("prompt",)


def test_prompt_and_camera_share_the_largest_id_of_what_took_effect() -> None:
    state = started()
    state, chunk = sample(push_transitions(push_prompt(state, "rain", 8), [["w"]], 5), 3)
    assert (chunk.event_id, chunk.kinds) == (8, ("prompt", "camera_actions"))
    state, chunk = sample(push_transitions(state, [[]], 9), 3)
    assert chunk.event_id == 9
    assert sample(push_prompt(state, "snow", 3), 3)[1].event_id == 9


def test_a_waiting_prompt_does_not_lend_its_id_to_chunk_0() -> None:
    state = push_prompt(push_transitions(IDLE, [["w"]], 1), "rain", 2)
    assert [chunk.event_id for chunk in chunks(state, 3, 2)] == [1, 2]


def test_events_without_an_id_leave_it_as_it_was() -> None:
    state = started(push_transitions(IDLE, [["w"]], 4))
    state, chunk = sample(push_transitions(state, [["a"]], None), 3)
    assert (chunk.actions, chunk.event_id) == ((A,) * 3, 4)


def test_keys_are_told_once_and_in_one_order() -> None:
    assert chunks(push_script(IDLE, [["l", "w", "w"]], 1), 1, 1)[0].actions == (("w", "l"),)


def test_a_composite_applies_all_under_one_id() -> None:
    keys = HeldKeys("state", (Transition(W), Transition(NONE)))
    state = push_composite(started(), [PromptText("rain"), keys], 6)
    _, chunk = sample(state, 3)
    assert (chunk.prompt, chunk.actions, chunk.event_id) == ("rain", (W, NONE, NONE), 6)


@pytest.mark.parametrize(
    "broken",
    [CameraScript((W, ("jump",))), PromptText("  "), HeldKeys("state", (Transition(("x",)),))],
)
def test_a_composite_with_a_broken_part_applies_none_of_it(broken: object) -> None:
    state = push_transitions(IDLE, [["w"]], 1)
    before = msgspec.structs.asdict(state)
    with pytest.raises((ControlError, PromptError)):
        push_composite(state, [PromptText("rain"), CameraScript((A,)), broken], 2)  # type: ignore[list-item]
    assert msgspec.structs.asdict(state) == before


@pytest.mark.parametrize("push", [push_script, push_transitions])
def test_unknown_actions_are_refused(push: Callable[..., ControlState]) -> None:
    with pytest.raises(ControlError, match="unknown action"):
        push(IDLE, [["w"], ["fly"]], 1)


@pytest.mark.parametrize("push", [push_script, push_transitions])
def test_more_than_512_items_at_once_are_refused(push: Callable[..., ControlState]) -> None:
    push(IDLE, [["w"]] * 512, 1)
    with pytest.raises(ControlError, match="too long"):
        push(IDLE, [["w"]] * 513, 1)


def test_waiting_changes_are_bounded_and_the_oldest_go_first() -> None:
    state = push_transitions(IDLE, [["w"]], 1)
    for i in range(600):
        state = push_transitions(state, [["a"] if i == 300 else []], 2 + i)
    assert len(state.pending) == 512
    assert chunks(state, 3, 1)[0].actions == (A, NONE, NONE)


class Model:
    """The same rules written down a second time, with mutable lists and no shared code."""

    def __init__(self) -> None:
        self.script: list[tuple[frozenset[str], int | None]] = []
        self.level: tuple[frozenset[str], int | None] = (frozenset(), None)
        self.changes: list[tuple[frozenset[str], int | None]] = []
        self.prompt: tuple[str, int | None] | None = None
        self.reported: int | None = None
        self.index = 0

    def push(self, kind: str, payload: list[frozenset[str]], event_id: int | None) -> None:
        if kind == "prompt":
            self.prompt = ("a prompt", event_id)
        elif kind == "script":
            self.script = [(keys, event_id) for keys in payload]
            self.level, self.changes = (frozenset(), event_id), []
        else:
            self.script = []
            now = self.changes[-1][0] if self.changes else self.level[0]
            self.changes += [(keys, event_id) for keys in payload] or [(now, event_id)]

    def chunk(self, frames: int) -> tuple[list[frozenset[str]], bool, int | None]:
        shown: list[tuple[frozenset[str], int | None]] = []
        if self.script:
            shown = self.script[:frames]
            self.script = self.script[frames:]
        elif self.changes:
            pulse = next((c for c in reversed(self.changes) if c[0]), self.changes[-1])
            self.level = self.changes[-1]
            self.changes = []
            if pulse[0] != self.level[0]:
                shown = [pulse]
        shown += [self.level] * (frames - len(shown))
        ids = [event_id for _, event_id in shown]
        prompted = self.prompt is not None and self.index > 0
        if prompted and self.prompt is not None:
            ids.append(self.prompt[1])
            self.prompt = None
        self.index += 1
        known = [i for i in (*ids, self.reported) if i is not None]
        self.reported = max(known, default=None)
        return [keys for keys, _ in shown], prompted, self.reported


KEYS = st.frozensets(st.sampled_from("wasdijkl"), max_size=3)
EVENT = st.tuples(
    st.sampled_from(["script", "state", "prompt"]),
    st.lists(KEYS, max_size=5),
    st.none() | st.integers(0, 40),
)
STEP = st.tuples(st.just("sample"), st.integers(1, 4)) | EVENT


@given(st.lists(STEP, max_size=25))
@settings(max_examples=150, deadline=None)
def test_any_history_follows_the_rules(history: list[tuple[object, ...]]) -> None:
    state, model, last = IDLE, Model(), -1
    for step in history:
        if step[0] == "sample":
            state, got = sample(state, step[1])  # type: ignore[arg-type]
            actions, prompted, event_id = model.chunk(step[1])  # type: ignore[arg-type]
            assert [frozenset(keys) for keys in got.actions] == actions
            assert (got.prompt is not None, got.event_id) == (prompted, event_id)
            assert (-1 if got.event_id is None else got.event_id) >= last
            last = -1 if got.event_id is None else got.event_id
            continue
        kind, payload, event_id = step
        model.push(kind, payload, event_id)  # type: ignore[arg-type]
        if kind == "prompt":
            state = push_prompt(state, "a prompt", event_id)  # type: ignore[arg-type]
        else:
            push = push_script if kind == "script" else push_transitions
            state = push(state, payload, event_id)  # type: ignore[arg-type]


@given(
    st.lists(st.lists(EVENT.map(lambda event: event[:2]), max_size=6), min_size=1, max_size=8),
    st.integers(2, 4),
)
@settings(max_examples=80, deadline=None)
def test_counting_ids_are_all_reported_by_the_next_chunk(
    groups: list[list[tuple[str, list[frozenset[str]]]]], frames: int
) -> None:
    state, count = started(), 0
    for group in groups:
        for kind, payload in group:
            count += 1
            if kind == "prompt":
                state = push_prompt(state, "a prompt", count)
            else:
                push = push_script if kind == "script" else push_transitions
                state = push(state, payload, count)
        state, chunk = sample(state, frames)
        assert (chunk.event_id or 0) == count
        assert len(chunk.actions) == frames
