"""Going back in one session, branching off it, saving it: what both dialects have in common.

Everything here happens between two chunks of the session, in its own loop (`server.errands`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from worldline.core.errors import SnapshotError, WorldlineError
from worldline.core.live.client import Rewind
from worldline.core.snapshot import chunk_back
from worldline.core.walk import WorldStart, made_with
from worldline.core.walked import Walked
from worldline.runtime.protocol import OpenReply, OpenRequest, SavedReply
from worldline.server.device import Turn
from worldline.server.history import History
from worldline.server.logs import log
from worldline.server.recovery import PATIENT_S, open_again, timed
from worldline.server.services import Services
from worldline.server.waiting import in_thread
from worldline.server.walks import Wish, check_wish

logger = logging.getLogger("worldline.server")

SNAPSHOT_SUFFIX: Final = ".snapshot"
MOST_TAKEN: Final = 64  # snapshots of one session that can be gone back to


class _Taken(NamedTuple):
    """What a snapshot is of."""

    history: History
    start: WorldStart


class TimeMachine:
    """Of one open session. `again` makes the request that opens it once more, `hashed` returns once
    the digests so far are in the history."""

    def __init__(
        self,
        services: Services,
        reply: OpenReply,
        history: History,
        *,
        start: WorldStart,
        again: Callable[[], Awaitable[OpenRequest]],
        hashed: Callable[[], Awaitable[None]],
    ) -> None:
        self.start = start
        self.history = history
        self._services = services
        self._engine = services.engine
        self._reply = reply
        self._id = reply.session_id
        self._again = again
        self._hashed = hashed
        self._taken: dict[str, _Taken] = {}
        self._count = 0

    def resolved(self, wish: Wish) -> Wish:
        """The wish with a chunk for seconds, counted from where the walk is now.

        Raises: ControlError unless it says where to go, in one way; SnapshotError.
        """
        check_wish(wish)
        if not isinstance(wish, Rewind) or wish.seconds is None:
            return wish
        place, reply = self.history.place, self._reply
        chunk = chunk_back(place, wish.seconds, chunk=reply.chunk, fps=reply.fps)
        return replace(wish, chunk=chunk, seconds=None)

    def place_of(self, chunk: int | None) -> int:
        """The chunk that is meant; None is where the walk stands. Raises: SnapshotError."""
        place = self.history.place
        if chunk is None:
            return place
        if chunk > place:
            raise SnapshotError("the walk is not so long", expected=f"0 to {place}", got=chunk)
        return chunk

    async def go_back(self, chunk: int) -> None:
        """Stand before `chunk`: by what the engine kept, else by what we have, else anew."""
        if chunk == self.history.place:
            return
        with self._timed("rewind"):
            await self._go_back(chunk)

    async def _go_back(self, chunk: int) -> None:
        try:
            async with self._turn():
                reply = await self._engine.rewind(self._id, chunk)
        except SnapshotError as error:
            log(logger, logging.INFO, "opened anew", session_id=self._id, error=str(error))
        else:
            self.history.rewound(reply)
            return
        request = await self._again()
        self.history.back(chunk)
        await self._engine.close(self._id)
        await open_again(self._services, request, self.history)

    async def restart(self, seed: int | None) -> None:
        """Stand at the start again, perhaps with another seed."""
        async with self._turn():
            await self._engine.reset(self._id, seed)
        if seed is not None:
            self.start = replace(self.start, seed=seed)
        self.history.restart(seed)

    async def branch(self, name: str, chunk: int) -> tuple[OpenReply, History]:
        """Another session `name` that stands before `chunk`, and the walk to there."""
        try:
            with self._timed("branch"):
                async with self._turn():
                    reply = await self._engine.branch(self._id, name, chunk)
        except BaseException:  # also when nobody waits for it any more: it may be there
            with suppress(WorldlineError):
                await self._engine.close(name)
            raise
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
        self._count += 1
        name = f"{self._id}-{self._count}-chunk-{self.history.place}{SNAPSHOT_SUFFIX}"
        folder = Path(where)
        await in_thread(self._services.readers, partial(folder.mkdir, parents=True, exist_ok=True))
        with self._timed("snapshot"):
            async with self._turn():
                saved = await self._engine.snapshot(self._id, str(folder / name))
        self._taken[saved.path] = _Taken(self.history.branch(saved.chunk), self.start)
        if len(self._taken) > MOST_TAKEN:
            del self._taken[next(iter(self._taken))]
        return saved

    async def restore(self, path: str) -> None:
        """Stand where a snapshot of this session was taken. Raises: SnapshotError."""
        taken = self._taken.get(path)
        if taken is None:
            known = ", ".join(self._taken) or "none was taken"
            raise SnapshotError("no snapshot of this session", expected=known, got=path[:200])
        request = replace(await self._again(), snapshot=path, seed=taken.start.seed)
        with self._timed("restore"):
            await self._engine.close(self._id)
            try:
                async with self._turn():
                    reply = await self._engine.open(request)
            except SnapshotError:  # the file is gone, or was changed: it stands where it stood
                await open_again(self._services, await self._again(), self.history)
                raise
        self.start = taken.start
        self.history.become(taken.history.branch(taken.history.place))
        self.history.opened(reply)

    def _timed(self, what: str) -> AbstractContextManager[None]:
        return timed(self._services, what)

    def _turn(self) -> AbstractAsyncContextManager[Turn]:
        deadline = self._services.clock.now() + PATIENT_S
        return self._services.device.turn(self._id, deadline=deadline)
