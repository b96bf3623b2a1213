"""What an open world consists of, and how inputs change it; nothing here waits.

A walk has controls (what is asked for), a governor (when) and a production (the chunks). Whatever
cannot be used raises and has changed nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from worldline.core.chunk import PICTURES
from worldline.core.errors import RateError
from worldline.core.hands import MAX_PATH, Hands, check_path, fold, fold_path, noted, with_speed
from worldline.core.live.client import (
    Camera,
    Enter,
    HandMessage,
    Keys,
    Pad,
    Pointer,
    Prompt,
    Release,
    Settings,
)
from worldline.core.trajectory import latent_frames, motions_along
from worldline.runtime.protocol import OpenReply
from worldline.server.device import Device
from worldline.server.doors.buckets import Bucket, Rate
from worldline.server.history import History
from worldline.server.inbox import check_prompt
from worldline.server.live.controls import Controls, NewPrompt
from worldline.server.live.frames import Audience
from worldline.server.live.governor import Governor, Lever
from worldline.server.live.moments import Moments
from worldline.server.live.playout import Playout
from worldline.server.live.production import Production
from worldline.server.services import Services

# Following a path takes the event loop's time, about 0.8 us a pose and 2.4 us a latent frame: the
# longest path there can be takes 13 ms. So much may come in a second.
FRAME_COST: Final = 3  # in poses
PATH_COST: Final = Rate(per_s=(1 + FRAME_COST) * MAX_PATH, burst=(1 + FRAME_COST) * MAX_PATH)


class Walk:
    """Of the session that `reply` opened for what `enter` asked for."""

    def __init__(
        self,
        services: Services,
        reply: OpenReply,
        enter: Enter,
        *,
        device: Device,
        history: History,
        audience: Audience,
    ) -> None:
        self.reply = reply
        self._config = services.config
        self._clock = services.clock
        self._latent_s = PICTURES / reply.fps
        self._paths = Bucket(PATH_COST, self._clock.now())
        self.controls = Controls(
            enter.speed, latent_s=self._latent_s, rig=reply.rig, frames=reply.chunk
        )
        lead_s = self._config.lead_s if enter.lead_ms is None else enter.lead_ms / 1000
        self._lead_s = min(lead_s, self._config.max_lead_s)
        self.governor = self._new_governor(_levers(services, reply))
        self.history = history
        self.prompt = history.prompt  # what was said last, also before a chunk has taken it
        self.moments = Moments(reply, services.encoders, tell=audience.tell_holder)
        self.production = Production(
            services,
            reply,
            device=device,
            controls=self.controls,
            governor=self.governor,
            history=history,
            moments=self.moments,
            audience=audience,
        )

    def _new_governor(self, levers: tuple[Lever, ...]) -> Governor:
        chunk_s = self.reply.chunk * self._latent_s
        return Governor(
            Playout(self.reply.fps, chunk_s),
            chunk_s=chunk_s,
            lead_s=self._lead_s,
            restart_s=self._config.restart_s,
            levers=levers,
        )

    def note(self, id: int) -> None:
        """Input `id` is applied with the next chunk."""
        self.controls.fold(id, partial(noted, id=id), now=self._clock.now())

    def move(self, message: HandMessage) -> None:
        """Take what a hand does. Raises: ControlError, RateError for path after path."""
        is_path = isinstance(message, Camera)
        change = self._along(message) if is_path else partial(fold, message=message)
        if self.controls.fold(message.id, change, now=self._clock.now()):
            self.production.reconsider()
        if _moves(message):
            self.production.tape = None

    def say(self, message: Prompt) -> None:
        """New words, from the next chunk on. Raises: PromptError."""
        check_prompt(message.text, self._config.max_prompt_chars)
        self.note(message.id)
        self.controls.prompt = NewPrompt(message.text, message.blend_chunks)
        self.prompt = message.text
        self.production.tape = None

    def will_go_back(self) -> None:
        """The walk goes elsewhere at the next pause: no words said before that count any more."""
        self.controls.forget_prompt()
        self.production.tape = None

    def went_back(self) -> None:
        """It stands there, under the words of that place, or those said since."""
        said = self.controls.prompt
        self.prompt = self.history.prompt if said is None else said.text

    def set(self, message: Settings) -> None:
        """Change speed and lead; formats and bitrates are the viewers' affair."""
        change = partial(noted, id=message.id)
        if message.speed is not None:
            change = partial(_at_speed, speed=message.speed, id=message.id)
        self.controls.fold(message.id, change, now=self._clock.now())
        if message.lead_ms is not None:
            self.governor.lead_s = min(message.lead_ms / 1000, self._config.max_lead_s)

    def pass_on(self) -> None:
        """Somebody else has the controls: speed and lead are what they were at the start."""
        self.controls.first_speed()
        self.governor.lead_s = self._lead_s

    def _along(self, message: Camera) -> partial[Hands]:
        rate, latent_s = message.rate, self._latent_s
        frames = latent_frames(len(message.poses), rate=rate, latent_s=latent_s)
        check_path(frames)
        if self._paths.ask(self._clock):
            raise RateError("paths come too fast", expected="fewer, or shorter ones")
        self._paths.spend(len(message.poses) + FRAME_COST * frames, self._clock)
        motions = motions_along(message.poses, rate=rate, latent_s=latent_s, rig=self.reply.rig)
        return partial(fold_path, motions=motions, loop=message.loop, id=message.id)


def _moves(message: HandMessage) -> bool:
    """Whether a hand begins to walk by itself; letting go of nothing leaves a tape running."""
    match message:
        case Keys(held=held):
            return bool(held)
        case Pad(x=x, z=z, yaw=yaw, pitch=pitch):
            return any((x, z, yaw, pitch))
        case Pointer(yaw=yaw, pitch=pitch):
            return bool(yaw or pitch)
        case Release():
            return False
        case _:
            return True


def _at_speed(hands: Hands, *, speed: float, id: int) -> Hands:
    return noted(with_speed(hands, speed), id)


def _levers(services: Services, reply: OpenReply) -> tuple[Lever, ...]:
    """Those that are allowed and exist: in exact mode nothing may change what is generated."""
    exists: dict[Lever, bool] = {
        "encode_quality": True,
        "steps": reply.steps > 1 and services.engine.info.mode != "exact",
    }
    return tuple(lever for lever in services.config.levers if exists[lever])
