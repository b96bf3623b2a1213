"""One chunk from the moment its controls are sampled until its memory is given back.

Its pictures come latent frame by latent frame while it is generated, and go to the audience as they
come. The memory belongs to the engine's result and goes back when the last picture was released and
the result is there, or at once when nobody will see them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from worldline.core.chunk import Decoded
from worldline.runtime.handle import StepResult
from worldline.server.live.controls import Taken
from worldline.server.live.frames import ChunkFrames, Sent


class Flight:
    """Chunk `index` of a world, `place` of its walk; `first` is the number of its first picture.

    `hand` counts who holds the controls, `waited_s` is the governor's wait before `asked`, when the
    device was asked for, `device_s` the wait for it.
    """

    def __init__(
        self,
        index: int,
        taken: Taken,
        *,
        place: int,
        first: int,
        hand: int,
        asked: float,
        on_free: Callable[[], None],
    ) -> None:
        self.index = index
        self.taken = taken
        self.place = place
        self.first = first
        self.hand = hand
        self.asked = asked
        self.waited_s = self.device_s = 0.0
        self.stepped = asked
        self.ended = asked
        self.frames = 0
        self.given_up = False
        self.sent: list[Sent] = []
        self.need_s = 0.0
        self._result: StepResult | None = None
        self._out: set[int] = set()
        self._on_free = on_free
        self._free = False
        self._held = False

    @property
    def handed_on(self) -> bool:
        """Whether pictures have come; then it can no longer be given up."""
        return self.frames > 0

    @property
    def landed(self) -> bool:
        """Whether the engine has made all of it."""
        return self._result is not None

    def take(self, decoded: Decoded) -> ChunkFrames:
        """The pictures of one latent frame, for the audience."""
        number = self.first + decoded.first
        self.frames += len(decoded.frames)
        self._out.add(decoded.latent_frame)
        return ChunkFrames(
            chunk=self.index,
            latent_frame=decoded.latent_frame,
            number=number,
            frames=decoded.frames,
            input=self.taken.sample.inputs[decoded.latent_frame],
            view=decoded.pose,
            first=decoded.latent_frame == 0,
            last=decoded.latent_frame == len(self.taken.sample.motions) - 1,
            release=partial(self._release, decoded.latent_frame),
        )

    def land(self, result: StepResult, now: float) -> None:
        """The engine has made all of it."""
        self._result, self.ended = result, now
        if self._free:  # dropped meanwhile
            result.release()
        self._give_back()

    def hold(self) -> None:
        """Somebody else reads its pixels, too, until `let_go`; not even `drop` frees them."""
        self._held = True

    def let_go(self) -> None:
        """Nobody else reads them any more."""
        self._held = False
        self._give_back()

    def shown(self, pictures: ChunkFrames, sent: Sent, *, now: float, fps: float) -> None:
        """The audience has these; keeps what the governor wants to know."""
        self.sent.append(sent)
        plays = (pictures.number - self.first) / fps  # after the first picture of the chunk
        self.need_s = max(self.need_s, now - self.asked - plays)

    def drop(self) -> None:
        """Nobody will see what is left of it; idempotent."""
        self._out.clear()
        self._give_back()
        if not self._held:
            self._make_room()

    def stages(self, now: float) -> dict[str, float]:
        """Where its time went, in ms, up to `now`.

        `inbox` is the longest that one of its inputs waited, `wait` the governor's, `device` the
        wait for a turn, `step` the engine's (of it `conditions`, `picture`, `denoise`, `context`,
        `decode`, `transfer`), `encode_wait` and `encode` the pictures', summed. `total` runs from
        asking for the device to the last picture.
        """
        assert self._result is not None, "the engine is done with it"
        timings = self._result.timings
        seconds = {
            "inbox": self.taken.inbox_s,
            "wait": self.waited_s,
            "device": self.device_s,
            "step": self.ended - self.stepped,
            "encode_wait": sum(sent.wait_s for sent in self.sent),
            "encode": sum(sent.encode_s for sent in self.sent),
            "total": now - self.asked,
        }
        return {name: round(value * 1000, 3) for name, value in seconds.items()} | {
            "conditions": timings.conditions_ms,
            "picture": timings.encode_ms,
            "denoise": timings.denoise_ms,
            "context": timings.context_ms,
            "decode": timings.decode_ms,
            "transfer": timings.transfer_ms,
        }

    def _release(self, latent_frame: int) -> None:
        self._out.discard(latent_frame)
        self._give_back()

    def _give_back(self) -> None:
        if self._result is not None and not (self._out or self._free or self._held):
            self._result.release()
            self._make_room()

    def _make_room(self) -> None:
        if not self._free:
            self._free = True
            self._on_free()
