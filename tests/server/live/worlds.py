"""A world that needs no engine, with the manners of a real one: `rooms` and `house` see no more.

It holds what it was told, shows a picture when a test asks for one, and counts what was begun and
ended, so that a test can tell that nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from worldline.core.errors import ControlError
from worldline.core.live.client import (
    Enter,
    Input,
    Keys,
    Pause,
    Playhead,
    Release,
    Reset,
    Resume,
    Shown,
)
from worldline.core.live.server import (
    Moment,
    Opened,
    Received,
    RigSpeed,
    ServerMessage,
    StateChange,
)
from worldline.core.live.shared import State
from worldline.core.motion import Pose
from worldline.core.states import follow
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.entering import Pixels
from worldline.server.live.frames import ChunkFrames
from worldline.server.live.room import Room
from worldline.server.services import Services

HERE = Pose(c2w=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))
RIG = RigSpeed(move=0.1, yaw_deg=3.0, pitch_deg=3.0, pitch_limit_deg=60.0)


def chunk_of(number: int, pixels: Pixels, newest: int) -> ChunkFrames:
    """A chunk that is one latent frame."""
    return ChunkFrames(
        chunk=number,
        latent_frame=0,
        number=number,
        frames=pixels,
        input=newest,
        view=HERE,
        first=True,
        last=True,
        release=lambda: None,
    )


class FakeWorld:
    """See `server.live.room.World`; `chunk()` generates, and only then anything happens."""

    def __init__(self, enter: Enter, picture: Pixels | None, audience: Broadcast) -> None:
        self.enter = enter
        self.picture = picture
        self.audience = audience
        self.state: State = "opening"
        self.held: tuple[str, ...] = ()
        self.walked: list[tuple[str, ...]] = []  # what was held in each chunk
        self.inputs: list[Input] = []
        self.playheads: list[Playhead] = []
        self.let_go_count = self.passed = 0
        self.frames = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fail_open: Exception | None = None
        self.closed_for: str | None = None
        self.recovering = False
        self.parks = True  # else it takes longer than anybody has waited

    @property
    def moments(self) -> Sequence[Moment]:
        """None."""
        return ()

    @property
    def opened(self) -> Opened:
        """Small, and where it is now."""
        return Opened(
            width=self.enter.width or 64,
            height=self.enter.height or 48,
            fps=16,
            chunk=3,
            latent_frames=4,
            window=9,
            sink=2,
            steps=4,
            seed=self.enter.seed,
            prompt=self.enter.prompt,
            rig=RIG,
            intrinsics=(40.0, 40.0, 32.0, 24.0),
            first_frame=self.frames,
            controls=True,
            state=self.state,
        )

    async def open(self) -> Opened:
        """Once `gate` is open, or raise `fail_open`."""
        await self.gate.wait()
        if self.fail_open is not None:
            raise self.fail_open
        self._become("live")
        return self.opened

    async def run(self) -> None:
        """Until `complete` is done."""
        await self.complete

    async def close(self, reason: str) -> None:
        """Once `may_close` is open."""
        self._become("closed")
        await self.may_close.wait()
        self.closed_for = reason

    def take(self, message: Input) -> Sequence[ServerMessage]:
        """Keep it; what is a pause pauses."""
        if isinstance(message, Reset) and message.seed == 13:
            raise ControlError("no such seed", got=13)
        self.inputs.append(message)
        match message:
            case Keys(held=held):
                self.held = held
            case Release():
                self.held = ()
            case Pause():
                self.pause()
            case Resume():
                self.resume()
            case _:
                pass
        return [Received(id=message.id, server_ms=0.0)]

    def let_go(self) -> None:
        """Release."""
        self.held = ()
        self.let_go_count += 1

    def pass_on(self) -> None:
        """Release, for somebody else."""
        self.passed += 1
        self.let_go()

    def playhead(self, report: Playhead, now: float) -> None:
        """Keep it."""
        self.playheads.append(report)

    def shown(self, report: Shown) -> None:
        """Nothing."""

    def pause(self) -> None:
        """At once."""
        self._become("paused")

    def resume(self) -> None:
        """At once."""
        self._become("live")

    def park(self) -> None:
        """At once, if it `parks` at all."""
        if self.parks:
            self._become("parked")

    def drain(self) -> None:
        """At once."""
        self._become("draining")

    async def chunk(self) -> None:
        """One chunk of one picture."""
        assert self.state in ("live", "draining"), self.state
        self.walked.append(self.held)
        newest = max((message.id for message in self.inputs), default=0)
        opened = self.opened
        pixels = np.full((1, opened.height, opened.width, 3), self.frames % 256, dtype=np.uint8)
        number = self.frames
        self.frames += 1
        await self.audience.show(chunk_of(number, pixels, newest))

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = follow(self.state, state)
            self.audience.tell(StateChange(state=state))


class Worlds:
    """Makes fake worlds, and keeps them for a test."""

    def __init__(self) -> None:
        self.made: list[FakeWorld] = []
        self.fail_open: Exception | None = None
        self.hold_opening = False
        self.hold_closing = False

    def make(
        self, services: Services, room: Room, picture: Pixels | None
    ) -> tuple[FakeWorld, Broadcast]:
        """What `House` calls."""
        audience = Broadcast(
            room.id,
            services.config,
            clock=services.clock,
            encoders=services.encoders,
            metrics=services.metrics,
        )
        world = FakeWorld(room.enter, picture, audience)
        world.fail_open, self.fail_open = self.fail_open, None
        if self.hold_opening:
            world.gate.clear()
        if self.hold_closing:
            world.may_close.clear()
        self.made.append(world)
        return world, audience

    @property
    def last(self) -> FakeWorld:
        """The newest."""
        return self.made[-1]

    def nothing_is_left(self) -> None:
        """Assert that every world was closed."""
        assert [world.state for world in self.made] == ["closed"] * len(self.made)
        assert all(world.closed_for for world in self.made)
