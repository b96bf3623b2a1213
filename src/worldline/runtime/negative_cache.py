"""The negative prompt of guided requests: encoded once, handed out by reference.

One entry per text stage: who asks for another negative prompt in between pays for both again, and
no memory is held for prompts that nobody comes back with. The key is what changes the result and
nothing else: model, encoders, prompt, template. Without guidance nothing is encoded, a warm-up
leaves no trace, and changed weights are announced by `invalidate`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.core.env import read_env
from worldline.core.errors import PromptError
from worldline.runtime.text_cache import Text
from worldline.runtime.text_rows import true_rows

NO_GUIDANCE = 1.0  # at this scale the unconditional branch has no weight


class NegativeKey(NamedTuple):
    """All that the states of a negative prompt depend on."""

    model: str
    encoders: tuple[str, ...]
    prompt: Hashable
    template: Hashable


class _Entry(NamedTuple):
    key: NegativeKey
    text: Text
    version: int
    digest: bytes | None  # only where it is guarded


class NegativeCache:
    """One negative prompt; `encoded` counts how often the encoder really ran.

    `encode` maps a prompt to states `[1, S, C]`. With `guarded` every use checks that nobody has
    written into them; see `guards_wanted`.
    """

    def __init__(
        self,
        encode: Callable[[str], Tensor],
        *,
        model: str,
        encoders: Iterable[str] = ("text",),
        guarded: bool = False,
    ) -> None:
        self._encode = encode
        self._model, self._encoders = model, tuple(encoders)
        self._guarded = guarded
        self._entry: _Entry | None = None
        self.encoded = 0

    def __len__(self) -> int:
        return int(self._entry is not None)

    def get(
        self,
        prompt: str,
        *,
        guidance: float,
        template: object = None,
        warm_up: bool = False,
    ) -> Text | None:
        """States of the negative prompt by reference, or None where `guidance` needs none.

        `template` is what a stage puts around its prompts; it must be made of plain values. A
        `warm_up` neither reads the entry nor leaves one. An empty prompt is a prompt like any
        other. Raises: PromptError for a template that cannot be a key.
        """
        if not needs_negative(guidance):
            return None
        if warm_up:
            return self._encoded(prompt)
        key = NegativeKey(self._model, self._encoders, frozen(prompt), frozen(template))
        entry = self._entry
        if entry is None or entry.key != key:
            self._entry = None  # free the old states before there are new ones
            text = self._encoded(prompt)
            entry = _Entry(key, text, text.states._version, self._digest(text))
            self._entry = entry
        self._check(entry)
        return entry.text

    def invalidate(self) -> None:
        """Forget: weights have changed."""
        self._entry = None

    def _encoded(self, prompt: str) -> Text:
        states = self._encode(prompt)
        self.encoded += 1
        return Text(states, true_rows(states))

    def _digest(self, text: Text) -> bytes | None:
        return digest_of(text.states) if self._guarded else None

    def _check(self, entry: _Entry) -> None:
        if not self._guarded:
            return
        states = entry.text.states
        assert states._version == entry.version, "the negative prompt's states were written to"
        assert digest_of(states) == entry.digest, "the negative prompt's states have changed"


def needs_negative(guidance: float) -> bool:
    """Whether a request of that guidance scale has an unconditional branch."""
    return guidance > NO_GUIDANCE


def guards_wanted() -> bool:
    """Whether this is a debug run: `python -X dev`, or the log level debug."""
    return sys.flags.dev_mode or read_env(os.environ).log_level == "debug"


def frozen(value: object) -> Hashable:
    """Plain values as a key: equal ones have equal keys, and later changes do not reach it.

    Raises: PromptError for anything else than text, numbers, None, and lists and maps of them.
    """
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return type(value).__name__, value
    if isinstance(value, Mapping):
        items = ((frozen(key), frozen(one)) for key, one in value.items())
        return "map", tuple(sorted(items, key=repr))
    if isinstance(value, (list, tuple)):
        return "list", tuple(frozen(one) for one in value)
    raise PromptError("this cannot be part of a prompt", expected="plain values", got=type(value))


def digest_of(states: Tensor) -> bytes:
    """A digest of a tensor's bits; waits for its device."""
    plain = states.detach().cpu().contiguous().view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).digest()
