"""Going back in one session, branching off it, saving it: what both dialects have in common.

Everything here happens between two chunks of the session, in its own loop (`server.errands`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from worldline.core.errors import SnapshotError
from worldline.core.snapshot import chunk_back
from worldline.core.walk import WorldStart, made_with
from worldline.core.walked import Walked
from worldline.runtime.protocol import OpenReply, SavedReply
from worldline.server.device import Turn
from worldline.server.history import History
from worldline.server.logs import log
from worldline.server.recovery import PATIENT_S, timed, walk_unseen
from worldline.server.services import Services
from worldline.server.waiting import in_thread

logger = logging.getLogger("worldline.server")

SNAPSHOT_SUFFIX: Final = ".snapshot"


class TimeMachine:
    """Of one open session. `hashed` returns once the digests so far are in the history."""

    def __init__(
        self,
        services: Services,
        reply: OpenReply,
        history: History,
        *,
        start: WorldStart,
        hashed: Callable[[], Awaitable[None]],
    ) -> None:
        self.start = start
        self.history = history
        self._services = services
        self._engine = services.engine
        self._reply = reply
        self._id = reply.session_id
        self._hashed = hashed

    def place_of(self, chunk: int | None, seconds: float | None = None) -> int:
        """The chunk that is meant; neither is where the walk stands. Raises: SnapshotError."""
        place, reply = self.history.place, self._reply
        if seconds is not None:
            return chunk_back(place, seconds, chunk=reply.chunk, fps=reply.fps)
        if chunk is None:
            return place
        if chunk > place:
            raise SnapshotError("the walk is not so long", expected=f"0 to {place}", got=chunk)
        return chunk

    async def go_back(self, chunk: int) -> None:
        """Stand before `chunk`: by what the engine kept, else from the start, unseen."""
        if chunk == self.history.place:
            return
        with self._timed("rewind"):
            await self._go_back(chunk)

    async def _go_back(self, chunk: int) -> None:
        try:
            async with self._turn():
                reply = await self._engine.rewind(self._id, chunk)
        except SnapshotError as error:
            log(logger, logging.INFO, "walking anew", session_id=self._id, error=str(error))
        else:
            self.history.rewound(reply)
            return
        async with self._turn():
            await self._engine.reset(self._id)
        self.history.anew(chunk)
        await walk_unseen(self._services, self.history, session_id=self._id)

    async def restart(self, seed: int | None) -> None:
        """Stand at the start again, perhaps with another seed."""
        async with self._turn():
            await self._engine.reset(self._id, seed)
        if seed is not None:
            self.start = replace(self.start, seed=seed)
        self.history.restart(seed)

    async def branch(self, name: str, chunk: int) -> tuple[OpenReply, History]:
        """Another session `name` that stands before `chunk`, and the walk to there."""
        with self._timed("branch"):
            async with self._turn():
                reply = await self._engine.branch(self._id, name, chunk)
        history = self.history.branch(chunk)
        history.opened(reply)
        return reply, history

    async def save(self) -> bytes:
        """The walk so far as a world file. Raises: WorldFileError."""
        with self._timed("save"):
            await self._hashed()
            walked = Walked(self.start, made_with(self._engine.info), self.history.steps)
            return await in_thread(self._services.readers, walked.encode)

    async def snapshot(self) -> SavedReply:
        """Write the session to a file of the setting `snapshots_dir`. Raises: SnapshotError."""
        where = self._services.config.snapshots_dir
        if where is None:
            wanted = "the setting snapshots_dir"
            raise SnapshotError("this server keeps no snapshots", expected=wanted)
        name = f"{self._id}-{self.history.place}{SNAPSHOT_SUFFIX}"
        folder = Path(where)
        await in_thread(self._services.readers, partial(folder.mkdir, parents=True, exist_ok=True))
        with self._timed("snapshot"):
            async with self._turn():
                return await self._engine.snapshot(self._id, str(folder / name))

    def _timed(self, what: str) -> AbstractContextManager[None]:
        return timed(self._services, what)

    def _turn(self) -> AbstractAsyncContextManager[Turn]:
        deadline = self._services.clock.now() + PATIENT_S
        return self._services.device.turn(self._id, deadline=deadline)
