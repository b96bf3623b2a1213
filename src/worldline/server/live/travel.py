"""Going back in one open world, branching off it, and saving its walk: the time machine's errands.

Each runs between two chunks, in the world's own loop, and answers the input that asked for it.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

from msgspec.structs import replace

from worldline.core.errors import (
    ControlError,
    SnapshotError,
    WorkerDiedError,
    WorldlineError,
)
from worldline.core.live.client import Branch, Rewind, Save
from worldline.core.live.codes import failure
from worldline.core.live.server import Branched, Rewound, Saved
from worldline.core.snapshot import chunk_back
from worldline.core.walk import WorldStart, made_with
from worldline.core.walked import Walked
from worldline.server.device import Turn
from worldline.server.history import History
from worldline.server.live.beginning import Beginning, Fork
from worldline.server.live.errands import Errand, Errands
from worldline.server.live.frames import Audience
from worldline.server.live.moments import seconds_at
from worldline.server.live.walk import Walk
from worldline.server.logs import log
from worldline.server.recovery import walk_unseen
from worldline.server.services import Services
from worldline.server.waiting import in_thread

logger = logging.getLogger("worldline.server")

PATIENT_S: Final = 2.0  # until it should be done


class Travel:
    """Of one open world."""

    def __init__(
        self,
        services: Services,
        world_id: str,
        walk: Walk,
        *,
        start: WorldStart,
        beginning: Beginning,
        audience: Audience,
    ) -> None:
        self.start = start
        self.errands = Errands()
        self._services = services
        self._engine = services.engine
        self._id = world_id
        self._walk = walk
        self._history: History = walk.history
        self._beginning = beginning
        self._audience = audience

    def take(self, message: Rewind | Branch | Save) -> None:
        """An input that asks for an errand. Raises: ControlError, RateError."""
        if isinstance(message, Rewind) and (message.chunk is None) == (message.seconds is None):
            raise ControlError("where to go back to?", expected="one of chunk and seconds")
        self.errands.put(Errand(partial(self._go, message), message.id))
        self._walk.note(message.id)
        if isinstance(message, Rewind):
            self._walk.will_go_back()
            self._walk.production.withdraw()

    def reset(self, seed: int | None) -> None:
        """Back to the start when there is a pause, its prompt too. Raises: RateError."""
        self.errands.put(Errand(partial(self._restart, seed)))
        self._walk.will_go_back()
        self._walk.prompt = self._history.first_prompt

    async def run_first(self) -> None:
        """The errand that is due; what cannot be done is told to who asked.

        Raises: what nobody asked for by an input; WorkerDiedError, and then it is still due.
        """
        errand = self.errands.first
        try:
            await errand.run()
        except WorkerDiedError:
            raise
        except WorldlineError as error:
            self.errands.done()
            if errand.id is None:
                raise
            self._audience.tell_holder(failure(error, id=errand.id))
        else:
            self.errands.done()

    async def _go(self, message: Rewind | Branch | Save) -> None:
        match message:
            case Rewind():
                await self._rewind(message)
            case Branch():
                await self._branch(message)
            case Save():
                await self._save(message)

    async def _restart(self, seed: int | None) -> None:
        async with self._turn():
            await self._engine.reset(self._id, seed)
        if seed is not None:
            self.start = replace(self.start, seed=seed)
        self._history.restart(seed)
        self._walk.moments.cut(0)
        self._walk.went_back()

    async def _rewind(self, message: Rewind) -> None:
        """Stand where `message` says, and tell everybody. Raises: SnapshotError, and more."""
        chunk = self._place_of(message.chunk)
        if message.seconds is not None:
            reply = self._walk.reply
            place = self._history.place
            chunk = chunk_back(place, message.seconds, chunk=reply.chunk, fps=reply.fps)
        if chunk != self._history.place:
            await self._go_back(chunk)
        self._walk.went_back()
        self._walk.moments.cut(chunk)
        self._audience.tell(
            Rewound(
                chunk=chunk,
                seconds=seconds_at(chunk, self._walk.reply),
                number=self._walk.production.next_number,
                prompt=self._history.prompt,
            )
        )

    async def _branch(self, message: Branch) -> None:
        """Found another world. Raises: CapacityError, LimitError, SnapshotError, and more."""
        family = self._beginning.family
        if family is None:
            raise ControlError("this world cannot branch")
        chunk = self._place_of(message.chunk)
        name = family.reserve()
        try:
            async with self._turn():
                reply = await self._engine.branch(self._id, name, chunk)
        except BaseException:
            family.give_up(name)
            raise
        history = self._history.branch(chunk)
        history.opened(reply)
        fork = Fork(reply, history, self._walk.moments.branch(chunk), self.start)
        token = family.found(name, fork)
        self._audience.tell_holder(
            Branched(id=message.id, world=name, token=token, url=f"/#rejoin={token}", chunk=chunk)
        )

    async def _save(self, message: Save) -> None:
        """Write the walk so far. Raises: WorldFileError, ControlError."""
        saves, history = self._beginning.saves, self._history
        if saves is None:
            raise ControlError("this world cannot be saved")
        await self._walk.production.hashed()
        walked = Walked(self.start, made_with(self._engine.info), history.steps)
        data = await in_thread(self._services.readers, walked.encode)
        saved = saves.put(self._id, data)
        self._audience.tell_holder(
            Saved(
                id=message.id,
                url=saved.url,
                bytes=len(data),
                chunks=history.place,
                seconds=seconds_at(history.place, self._walk.reply),
            )
        )

    def _place_of(self, chunk: int | None) -> int:
        place = self._history.place
        if chunk is None:
            return place
        if chunk > place:
            raise SnapshotError("the walk is not so long", expected=f"0 to {place}", got=chunk)
        return chunk

    async def _go_back(self, chunk: int) -> None:
        """By what the engine kept; else from the start, unseen."""
        try:
            async with self._turn():
                reply = await self._engine.rewind(self._id, chunk)
        except SnapshotError as error:
            log(logger, logging.INFO, "walking anew", session_id=self._id, error=str(error))
        else:
            self._history.rewound(reply)
            return
        async with self._turn():
            await self._engine.reset(self._id)
        self._history.anew(chunk)
        await walk_unseen(self._services, self._history, session_id=self._id)

    def _turn(self) -> AbstractAsyncContextManager[Turn]:
        deadline = self._services.clock.now() + PATIENT_S
        return self._services.device.turn(self._id, deadline=deadline)
