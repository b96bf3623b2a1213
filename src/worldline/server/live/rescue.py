"""A live world whose worker died is opened in the next, where it stood; its viewers are told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from worldline.core.errors import WorkerDiedError
from worldline.core.live.server import Notice
from worldline.server.live.frames import Audience
from worldline.server.live.opening import Begun, Opening
from worldline.server.live.walk import Walk
from worldline.server.logs import log
from worldline.server.recovery import Recovery
from worldline.server.services import Services

logger = logging.getLogger("worldline.server")


class Rescue:
    """Of one world."""

    def __init__(
        self, services: Services, world_id: str, opening: Opening, *, audience: Audience
    ) -> None:
        self._id = world_id
        self._opening = opening
        self._audience = audience
        self._recovery = Recovery(services)
        self.waiting = False  # for another worker

    async def open(self) -> Begun:
        """Open it for the first time, in the next worker if one dies under that.

        Raises: what the engine raises; WorkerDiedError when no other worker comes.
        """
        while True:
            try:
                return await self._opening.open(self._id)
            except WorkerDiedError as error:
                self._recovery.begin(error, 0)
                await self._recovery.worker(error, given_up=lambda: False)

    async def run(
        self, error: WorkerDiedError, walk: Walk, *, seed: int, given_up: Callable[[], bool]
    ) -> bool:
        """Whether the world stands in another worker, as in the last; not if it was `given_up`.

        Raises: `error` when no other worker comes, or every one dies; what the engine raises.
        """
        self._recovery.begin(error, walk.production.next_chunk)
        self._audience.tell(Notice(code="recovering", message="the world waits for a new worker"))
        self.waiting = True
        try:
            return await self._run(error, walk, seed=seed, given_up=given_up)
        finally:
            self.waiting = False

    async def _run(
        self, error: WorkerDiedError, walk: Walk, *, seed: int, given_up: Callable[[], bool]
    ) -> bool:
        while True:
            await self._recovery.worker(error, given_up=given_up)
            if given_up():
                return False
            try:
                await self._stand(walk, seed)
                return True
            except WorkerDiedError as again:
                error = again
                self._recovery.begin(error, walk.production.next_chunk)

    async def _stand(self, walk: Walk, seed: int) -> None:
        request = await self._opening.request(self._id)
        await self._recovery.stand(replace(request, seed=seed), walk.history)
        walk.governor.playout.stop()  # what was queued has been seen meanwhile
        self._audience.tell(Notice(code="recovered", message="the world goes on"))
        place = walk.history.place
        log(logger, logging.INFO, "world recovered", session_id=self._id, place=place)
