"""Going back in one session, branching off it, saving it: what both dialects have in common.

Everything here happens between two chunks of the session, in its own loop (`server.errands`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from worldline.core.errors import SnapshotError, WorkerDiedError, WorldlineError
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
from worldline.server.walks import Restore, Wish, check_wish

logger = logging.getLogger("worldline.server")

SNAPSHOT_SUFFIX: Final = ".snapshot"
MOST_TAKEN: Final = 64  # snapshots of one session that can be gone back to


class _Taken(NamedTuple):
    """What a snapshot is of."""

    history: History
    start: WorldStart


class TimeMachine:
    """Of one open session. `again` makes the request that opens it once more, `settled` returns
    once nobody reads pictures of it, and the digests of all of them are in the history."""

    def __init__(
        self,
        services: Services,
        reply: OpenReply,
        history: History,
        *,
        start: WorldStart,
        again: Callable[[], Awaitable[OpenRequest]],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self.start = start
        self.history = history
        self._services = services
        self._engine = services.engine
        self._reply = reply
        self._id = reply.session_id
        self._again = again
        self._settled = settled
        self._taken: dict[str, _Taken] = {}
        self._count = 0

    def resolved(self, wish: Wish) -> Wish:
        """The wish with a chunk for seconds, counted from where the walk is now.

        Raises: ControlError unless it says where to go, in one way; SnapshotError for a place that
        is not there.
        """
        check_wish(wish)
        if isinstance(wish, Restore):
            self._taken_at(wish.path)
        if not isinstance(wish, Rewind):
            return wish
        if wish.seconds is None:
            return replace(wish, chunk=self.place_of(wish.chunk))
        place, reply = self.history.place, self._reply
        chunk = chunk_back(place, wish.seconds, chunk=reply.chunk, fps=reply.fps)
        return replace(wish, chunk=chunk, seconds=None)

    @property
    def taken(self) -> Collection[str]:
        """Where the snapshots lie that can be gone back to."""
        return self._taken.keys()

    def place_of(self, chunk: int | None) -> int:
        """The chunk that is meant; None is where the walk stands. Raises: SnapshotError."""
        place = self.history.place
        if chunk is None:
            return place
        if chunk > place:
            raise SnapshotError("the walk is not so long", expected=f"0 to {place}", got=chunk)
        return chunk

    async def go_back(self, chunk: int) -> None:
        """Stand before `chunk`: by what the engine kept, else by what we have, else anew.

        What fails leaves the session where it stood. Raises: what the engine raises.
        """
        if chunk == self.history.place:
            return
        with self._timed("rewind"):
            await self._go_back(chunk)

    async def _go_back(self, chunk: int) -> None:
        try:
            async with self._turn():
                reply = await self._engine.rewind(self._id, chunk)
        except SnapshotError as error:  # before anything has changed
            log(logger, logging.INFO, "opened anew", session_id=self._id, error=str(error))
        except WorkerDiedError:
            raise
        except WorldlineError:  # half-way
            await self._stand_again()
            raise
        else:
            self.history.rewound(reply)
            return
        request = await self._again()
        await self._settled()  # a branch does not hear of digests that come later
        there = self.history.branch(chunk)
        await self._instead(partial(open_again, self._services, request, there))
        self.history.become(there)

    async def _instead(self, opening: Callable[[], Awaitable[object]]) -> None:
        """Close the session and open another by its name, or the same again where that fails.

        When the worker dies its history is as it was, and who brings it back goes on from there.
        """
        await self._close()
        try:
            await opening()
        except WorkerDiedError:
            raise
        except WorldlineError:
            await self._stand_again()
            raise

    async def _close(self) -> None:
        await self._settled()
        await self._engine.close(self._id)

    async def _stand_again(self) -> None:
        """Where the walk stood, whatever the engine has by that name now."""
        await self._close()
        await open_again(self._services, await self._again(), self.history)

    async def restart(self, seed: int | None) -> None:
        """Stand at the start again, perhaps with another seed."""
        async with self._turn():
            await self._engine.reset(self._id, seed)
        if seed is not None:
            self.start = replace(self.start, seed=seed)
        self.history.restart(seed)

    async def branch(self, name: str, chunk: int) -> tuple[OpenReply, History]:
        """Another session `name` that stands before `chunk`, and the walk to there."""
        await self._settled()
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
            await self._settled()
            walked = Walked(self.start, made_with(self._engine.info), self.history.steps)
            return await in_thread(self._services.readers, walked.encode)

    async def snapshot(self) -> SavedReply:
        """Write the session to a file of the setting `snapshots_dir`. Raises: SnapshotError."""
        where = self._services.config.snapshots_dir
        if where is None:
            wanted = "the setting snapshots_dir"
            raise SnapshotError("this server keeps no snapshots", expected=wanted)
        await self._settled()
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
        """Stand where a snapshot of this session was taken.

        What fails leaves the session where it stood. Raises: SnapshotError where the file is gone,
        or was changed; what the engine raises.
        """
        taken = self._taken_at(path)
        request = replace(await self._again(), snapshot=path, seed=taken.start.seed)
        there = taken.history.branch(taken.history.place)

        async def opening() -> None:
            async with self._turn():
                there.opened(await self._engine.open(request))

        with self._timed("restore"):
            await self._instead(opening)
        self.start = taken.start
        self.history.become(there)

    def _taken_at(self, path: str) -> _Taken:
        taken = self._taken.get(path)
        if taken is None:
            known = ", ".join(self._taken) or "none was taken"
            raise SnapshotError("no snapshot of this session", expected=known, got=path[:200])
        return taken

    def _timed(self, what: str) -> AbstractContextManager[None]:
        return timed(self._services, what)

    def _turn(self) -> AbstractAsyncContextManager[Turn]:
        deadline = self._services.clock.now() + PATIENT_S
        return self._services.device.turn(self._id, deadline=deadline)
