"""What the holder asks of a world, until a chunk takes it: hands, prompt, and when each id came.

A chunk that is given up never was: what it took is put back, together with what came since. So
nothing is lost, nothing is applied twice, and receipts stay true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from worldline.core.hands import MAX_WAITING, Hands, Sample, sample, with_speed
from worldline.core.motion import MOTIONLESS, Rig


class NewPrompt(NamedTuple):
    """Words for the next chunk, blended over so many."""

    text: str
    blend_chunks: int


class Taken(NamedTuple):
    """What one chunk took; `inbox_s` is the longest that one of its inputs waited."""

    sample: Sample
    prompt: NewPrompt | None
    inbox_s: float


class Controls:
    """Of one world. `hand` counts who holds the controls."""

    def __init__(self, speed: float, *, latent_s: float, rig: Rig, frames: int) -> None:
        self.hand = 0
        self.hands = Hands(speed=speed)
        self._speed = speed
        self.prompt: NewPrompt | None = None
        self._latent_s = latent_s
        self._rig = rig
        self._frames = frames
        self._before: Hands | None = None  # as if the chunk on its way had not been sampled
        self._before_prompt: NewPrompt | None = None
        self._came: dict[int, float] = {}

    def fold(self, id: int, change: Callable[[Hands], Hands], *, now: float) -> bool:
        """Take input `id`; whether what moves the camera by itself has changed.

        Raises: what `change` raises, and then nothing has changed.
        """
        before = self.hands
        self.hands = change(before)
        if self._before is not None:
            self._before = change(self._before)
        if len(self._came) < MAX_WAITING:
            self._came[id] = now
        after = self.hands
        same = (before.held, before.course) == (after.held, after.course)
        return not same or (before.stick == MOTIONLESS) != (after.stick == MOTIONLESS)

    def take(self, now: float) -> Taken:
        """What the next chunk is made with; then either `keep` or `put_back`."""
        assert self._before is None, "one chunk at a time"
        self._before, self._before_prompt = self.hands, self.prompt
        self.hands, taken = sample(self.hands, self._frames, latent_s=self._latent_s, rig=self._rig)
        came = [self._came[id] for id, _ in taken.applied if id in self._came]
        prompt, self.prompt = self.prompt, None
        return Taken(taken, prompt, now - min(came, default=now))

    def keep(self) -> None:
        """The chunk will be shown."""
        self._before = self._before_prompt = None
        self._came = {id: self._came[id] for id in self.hands.waiting if id in self._came}

    def put_back(self) -> None:
        """The chunk was given up; what it took waits again, unless something newer replaced it."""
        assert self._before is not None, "nothing was taken"
        self.hands, self._before = self._before, None
        self.prompt = self.prompt or self._before_prompt
        self._before_prompt = None

    def forget_prompt(self) -> None:
        """No prompt waits any more."""
        self.prompt = self._before_prompt = None

    def new_hand(self) -> None:
        """Let go of everything; ids begin anew, and older ones are answered no more."""
        self.hand += 1
        self.hands = Hands(speed=self.hands.speed)
        if self._before is not None:
            self._before = self.hands
        self._came.clear()

    def first_speed(self) -> None:
        """The speed is the one of the start again."""
        self.hands = with_speed(self.hands, self._speed)
