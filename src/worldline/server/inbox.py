"""Where a visitor's events wait until a chunk samples them; bounded, and folded on arrival."""

from __future__ import annotations

from worldline.core.control import (
    ChunkControls,
    ControlState,
    push_composite,
    push_script,
    sample,
)
from worldline.core.errors import PromptError
from worldline.core.events import CameraScript, Event, Input, PromptText, parse_event


class Inbox:
    """The control fold of one session, with its limits. Never holds a message, only its effect."""

    def __init__(self, max_prompt_chars: int) -> None:
        self._max_prompt_chars = max_prompt_chars
        self._state = ControlState()

    def start(self, script: CameraScript | None) -> None:
        """Begin anew, with a script that runs from chunk 0 if there is one; raises ControlError."""
        state = ControlState()
        self._state = state if script is None else push_script(state, script.actions, None)

    def apply(self, event: Event) -> None:
        """Take an event: all of it, or nothing.

        Raises: InvalidEventError, ControlError, PromptError.
        """
        inputs = parse_event(event)
        for value in inputs:
            self._check(value)
        self._state = push_composite(self._state, inputs, event.event_id)

    def sample(self, frames: int) -> ChunkControls:
        """The controls of the next chunk of `frames` latent frames."""
        self._state, controls = sample(self._state, frames)
        return controls

    def _check(self, value: Input) -> None:
        if isinstance(value, PromptText):
            check_prompt(value.text, self._max_prompt_chars)


def check_prompt(text: str, max_chars: int) -> None:
    """Raises PromptError for a prompt that is empty or longer than `max_chars`."""
    if not text.strip():
        raise PromptError("the prompt is empty", expected="some text")
    if len(text) > max_chars:
        raise PromptError(
            "the prompt is too long", expected=f"at most {max_chars} characters", got=len(text)
        )
