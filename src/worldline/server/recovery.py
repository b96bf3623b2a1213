"""A session whose worker died goes on in the next one, from the newest place that is known.

    the worker is gone -> wait for another, warmed up -> open at the newest snapshot
        -> walk unseen what was made since -> go on with the chunk that was lost

Used by both dialects. Without a snapshot the whole walk is walked again, unseen: slower, and the
same in exact mode, because everything a chunk depends on is in the walk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import msgspec

from worldline.core.errors import SnapshotError, WorkerDiedError
from worldline.runtime.protocol import OpenReply, OpenRequest
from worldline.server.history import History
from worldline.server.logs import log
from worldline.server.services import Services, is_ready
from worldline.server.warmup import REVIVAL_S, State

logger = logging.getLogger("worldline.server")

MOST_IN_A_ROW: Final = 3
PATIENT_S: Final = 2.0  # until an unseen chunk should be done


class Recovery:
    """How often one session was brought back; one that kills every worker is not, for ever."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._in_a_row = 0
        self._made_then = 0

    def begin(self, error: WorkerDiedError, made: int) -> None:
        """The worker died after `made` chunks. Raises it where nothing can be done about it.

        A session that made no chunk since the last time may itself be what kills them.
        """
        if made > self._made_then:
            self._in_a_row = 0
        self._made_then = made
        self._in_a_row += 1
        services = self._services
        waits = services.config.recover_s and services.engine.revives()
        if not waits or self._in_a_row > MOST_IN_A_ROW:
            services.walks.lost += 1
            raise error
        log(logger, logging.WARNING, "worker lost, world waits", times=self._in_a_row)

    async def stand(self, request: OpenRequest, history: History) -> None:
        """Go on in the worker there is now. Raises: as `open_again`."""
        with timed(self._services, "recover"):
            await open_again(self._services, request, history)
        self._services.walks.recovered += 1

    async def worker(self, error: WorkerDiedError, *, given_up: Callable[[], bool]) -> None:
        """Return once another worker is warm, or it is `given_up`.

        Raises: `error` when none comes within the setting `recover_s`.
        """
        services, clock = self._services, self._services.clock
        ends = clock.now() + services.config.recover_s
        while not (is_ready(services) or given_up()):
            hopeless = services.readiness.state is State.FAILED or not services.engine.revives()
            if hopeless or clock.now() >= ends:
                services.walks.lost += 1
                raise error
            await clock.sleep(REVIVAL_S)


@contextmanager
def timed(services: Services, what: str) -> Generator[None]:
    """Observe how long something took that succeeded."""
    began = services.clock.now()
    yield
    services.metrics.observe_travel(what, services.clock.now() - began)


async def open_again(services: Services, request: OpenRequest, history: History) -> OpenReply:
    """Open the session of `request` in the worker there is now, standing where `history` does:
    at its snapshot, and what was made since is walked again unseen.

    Raises: what the engine raises; then the session may be open there, and is still to be closed.
    """
    light = history.to_open
    if light is not None:
        request = msgspec.structs.replace(request, light=light.encode())
    reply = await _open(services, request)
    history.opened(reply)
    name = request.session_id
    await walk_unseen(services, history, session_id=name, first=reply.next_chunk)
    return reply


async def _open(services: Services, request: OpenRequest) -> OpenReply:
    deadline = services.clock.now() + PATIENT_S
    async with services.device.turn(request.session_id, deadline=deadline):
        try:
            return await services.engine.open(request)
        except SnapshotError as error:
            if request.light is None:
                raise
            log(logger, logging.WARNING, "snapshot refused, walking anew", error=str(error))
            return await services.engine.open(msgspec.structs.replace(request, light=None))


async def walk_unseen(
    services: Services, history: History, *, session_id: str, first: int = 0
) -> None:
    """Make the chunks of `history` from `first` on once more, and show them to nobody."""
    device, clock = services.device, services.clock
    for chunk in range(first, history.place):
        request = history.request(session_id, chunk)
        async with device.turn(session_id, deadline=clock.now() + PATIENT_S):
            result = await services.engine.step(request)
        kept = result.kept
        result.release()
        history.repeated(request, kept)
