"""From `enter` and a picture to what the engine is asked, and from its answer to `opened`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from worldline.core.chunk import PICTURES
from worldline.core.live.client import Enter
from worldline.core.live.server import Moment, Opened, RigSpeed
from worldline.core.live.shared import State
from worldline.core.walk import WorldStart
from worldline.runtime.protocol import OpenReply, OpenRequest
from worldline.runtime.world_start import open_request, world_start
from worldline.server.history import History
from worldline.server.live import entering
from worldline.server.live.beginning import Beginning
from worldline.server.live.entering import Pixels
from worldline.server.live.tape import Tape, steps_of
from worldline.server.recovery import walk_unseen
from worldline.server.services import Services

PATIENT_S: Final = 2.0  # until opening should be done


class Begun(NamedTuple):
    """An open session: where it stands, what it began with, and what is to be followed."""

    reply: OpenReply
    history: History
    start: WorldStart
    tape: Tape | None = None
    moments: Sequence[Moment] = ()


class Opening:
    """How one world is opened, for the first time and after its worker was lost.

    Between, the start picture is kept encoded, as it came.
    """

    def __init__(
        self, services: Services, enter: Enter, image: Pixels | None, *, beginning: Beginning
    ) -> None:
        self._services = services
        self._enter = enter
        self._image = image
        self._beginning = beginning
        fork, file = beginning.fork, beginning.file
        self._start = fork.start if fork is not None else None if file is None else file.start

    async def open(self, session_id: str) -> Begun:
        """Start it in the engine, or take over what a branch already is."""
        services, fork, file = self._services, self._beginning.fork, self._beginning.file
        if fork is not None:
            return Begun(fork.reply, fork.history, fork.start, moments=fork.moments)
        request = await self.request(session_id)
        deadline = services.clock.now() + PATIENT_S
        async with services.device.turn(session_id, deadline=deadline):
            reply = await services.engine.open(request)
        start = world_start(request, reply, picture=self._beginning.picture)
        history = History(request.prompt)
        history.opened(reply)
        if file is None:
            return Begun(reply, history, start)
        if not self._beginning.at_end:
            return Begun(reply, history, start, Tape(file))
        walked = History(request.prompt, tuple(steps_of(file)))
        walked.opened(reply)
        await walk_unseen(services, walked, session_id=session_id)
        return Begun(reply, walked, start)

    async def request(self, session_id: str) -> OpenRequest:
        """What the engine is asked, from the start. Raises: ImageError."""
        image, start = self._image, self._start
        if image is None:
            picture = replace(self._enter, image=self._beginning.picture)
            image = await entering.pixels(
                picture, config=self._services.config, pool=self._services.readers
            )
        elif self._beginning.picture:
            self._image = None
        if start is not None:
            again = open_request(start, image, session_id=session_id)
            return replace(again, sharded=self._enter.sharded)
        return to_open(self._enter, image, session_id=session_id)


def to_open(enter: Enter, picture: NDArray[np.uint8], *, session_id: str) -> OpenRequest:
    """The request for a checked wish and its picture, uint8 `H W 3`, RGB."""
    return OpenRequest(
        session_id=session_id,
        image=picture.tobytes(),
        image_width=picture.shape[1],
        image_height=picture.shape[0],
        prompt=enter.prompt,
        seed=enter.seed,
        width=enter.width,
        height=enter.height,
        window=enter.window,
        sink=enter.sink,
        intrinsics=enter.intrinsics,
        sharded=enter.sharded,
    )


def to_opened(
    reply: OpenReply, *, prompt: str, seed: int, speed: float, first_frame: int, state: State
) -> Opened:
    """The world as it really is, for the one who has the controls."""
    rig = reply.rig
    return Opened(
        width=reply.width,
        height=reply.height,
        fps=reply.fps,
        chunk=reply.chunk,
        latent_frames=PICTURES,
        window=reply.window,
        sink=reply.sink,
        steps=reply.steps,
        seed=seed,
        prompt=prompt,
        rig=RigSpeed(
            move=rig.move,
            yaw_deg=rig.yaw_deg,
            pitch_deg=rig.pitch_deg,
            pitch_limit_deg=rig.pitch_limit_deg,
        ),
        intrinsics=reply.intrinsics,
        first_frame=first_frame,
        controls=True,
        state=state,
        speed=speed,
    )
