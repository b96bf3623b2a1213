"""What a visitor asked for, folded into the controls of one chunk at a time; pure.

Camera input is either a script (one tuple of actions per latent frame, drained, then neutral) or
the keys held now; each replaces the other. All changes of the held keys since the last chunk are
taken at once: the last one holds, and if a newer press was released again in between it still
moves the first frame. A prompt waits for the next chunk after chunk 0; the newest wins.

The event id of a chunk is the largest id whose effect is in this or an earlier chunk. Prompt and
camera share it, and it never falls. Idle frames have empty actions, never none: there is always a
camera. Source: facts on the realtime wire, sections 2.3 and 2.4.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from worldline.core.actions import ACTIONS, check_actions
from worldline.core.errors import ControlError, PromptError
from worldline.core.events import CameraScript, HeldKeys, Input, PromptText

Actions = tuple[str, ...]

MAX_SCRIPT = 512
MAX_TRANSITIONS = 512
# Latent frames that a press gets when it was released again before it could be seen.
PULSE_FRAMES = 1
CAMERA = "camera_actions"
PROMPT = "prompt"


class Change(NamedTuple):
    """Keys held from some moment on, and the event that said so."""

    actions: Actions
    event_id: int | None


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that waits for a chunk, and what is held; of bounded size.

    `fresh` says that the camera input in force has not been in a chunk yet, and `fresh_id` is its
    event. `prompt_id` goes with `prompt`. `event_id` is what the last chunk reported.
    """

    script: tuple[Actions, ...] = ()
    pending: tuple[Change, ...] = ()
    held: Actions = ()
    fresh: bool = False
    fresh_id: int | None = None
    prompt: str | None = None
    prompt_id: int | None = None
    started: bool = False
    event_id: int | None = None


class ChunkControls(msgspec.Struct, frozen=True, kw_only=True):
    """Controls of one chunk: `actions` per latent frame, a prompt if it changes here.

    `kinds` names the inputs that shaped this chunk: "prompt", "camera_actions".
    """

    actions: tuple[Actions, ...]
    prompt: str | None
    event_id: int | None
    kinds: tuple[str, ...]


class _Sampled(NamedTuple):
    actions: tuple[Actions, ...]
    ids: tuple[int | None, ...]
    after: ControlState


def push_script(
    state: ControlState, script: Sequence[Collection[str]], event_id: int | None
) -> ControlState:
    """Replace all camera input by a script of at most 512 latent frames.

    Raises `ControlError` for an unknown action or a longer script; the old state stays usable.
    """
    _check_length("script", len(script), MAX_SCRIPT)
    return msgspec.structs.replace(
        state,
        script=tuple(_ordered(actions) for actions in script),
        pending=(),
        held=(),
        fresh=True,
        fresh_id=event_id,
    )


def push_transitions(
    state: ControlState, transitions: Sequence[Collection[str]], event_id: int | None
) -> ControlState:
    """Add changes of the held keys, oldest first, and drop a script that is still running.

    At most 512 changes wait; beyond that the oldest go. Raises `ControlError` for an unknown
    action or more than 512 changes at once; the old state stays usable.
    """
    _check_length("list of transitions", len(transitions), MAX_TRANSITIONS)
    changes = tuple(Change(_ordered(actions), event_id) for actions in transitions)
    if not changes:  # it says only that keys are in charge now, and they are as they were
        latest = state.pending[-1].actions if state.pending else state.held
        changes = (Change(latest, event_id),)
    pending = (state.pending + changes)[-MAX_TRANSITIONS:]
    return msgspec.structs.replace(state, script=(), pending=pending, fresh=False, fresh_id=None)


def push_prompt(state: ControlState, prompt: str, event_id: int | None) -> ControlState:
    """Let `prompt` replace the one in use from the next chunk on; raises `PromptError` if empty."""
    if not prompt.strip():
        raise PromptError("the prompt is empty", expected="some text")
    return msgspec.structs.replace(state, prompt=prompt, prompt_id=event_id)


def push_composite(
    state: ControlState, inputs: Sequence[Input], event_id: int | None
) -> ControlState:
    """Apply several inputs in order under one event id: all of them, or none and the error."""
    for value in inputs:
        match value:
            case CameraScript(actions):
                state = push_script(state, actions, event_id)
            case HeldKeys():
                keys = [transition.actions for transition in value.transitions]
                state = push_transitions(state, keys, event_id)
            case PromptText(text):
                state = push_prompt(state, text, event_id)
    return state


def sample(state: ControlState, frames: int) -> tuple[ControlState, ChunkControls]:
    """Take the controls of the next chunk of `frames` latent frames."""
    assert frames > 0, "a chunk has at least one latent frame"
    camera_kind = state.fresh or bool(state.pending)
    take = _sample_script if state.script else _sample_pending if state.pending else _sample_held
    actions, ids, after = take(state, frames)
    prompt = state.prompt if state.started else None
    if prompt is not None:
        ids = (*ids, state.prompt_id)
        after = msgspec.structs.replace(after, prompt=None, prompt_id=None)
    event_id = max((i for i in (state.event_id, *ids) if i is not None), default=None)
    kinds = (PROMPT,) * (prompt is not None) + (CAMERA,) * (camera_kind or any(actions))
    controls = ChunkControls(actions=actions, prompt=prompt, event_id=event_id, kinds=kinds)
    return msgspec.structs.replace(after, started=True, event_id=event_id), controls


def _sample_script(state: ControlState, frames: int) -> _Sampled:
    now, rest = state.script[:frames], state.script[frames:]
    after = msgspec.structs.replace(state, script=rest, fresh=False, fresh_id=None)
    return _Sampled(now + ((),) * (frames - len(now)), (state.fresh_id,), after)


def _sample_held(state: ControlState, frames: int) -> _Sampled:
    after = msgspec.structs.replace(state, fresh=False, fresh_id=None)
    return _Sampled((state.held,) * frames, (state.fresh_id,), after)


def _sample_pending(state: ControlState, frames: int) -> _Sampled:
    final = state.pending[-1]
    pulse = next((change for change in reversed(state.pending) if change.actions), final)
    count = 0 if pulse.actions == final.actions else min(PULSE_FRAMES, frames)
    seen = frames > count  # in a chunk of one frame the pulse leaves no room for what came after
    after = msgspec.structs.replace(
        state,
        pending=(),
        held=final.actions,
        fresh=not seen,
        fresh_id=None if seen else final.event_id,
    )
    actions = (pulse.actions,) * count + (final.actions,) * (frames - count)
    ids = (pulse.event_id,) * bool(count) + (final.event_id,) * seen
    return _Sampled(actions, ids, after)


def _ordered(actions: Collection[str]) -> Actions:
    held = check_actions(actions)
    return tuple(key for key in ACTIONS if key in held)


def _check_length(name: str, length: int, limit: int) -> None:
    if length > limit:
        raise ControlError(f"the {name} is too long", expected=f"at most {limit}", got=length)
