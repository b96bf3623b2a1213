"""The walk of one session of the mainline endpoint: remembered, gone back in, and rescued.

Its wire knows none of this: what administrators ask happens between two chunks, and the client sees
pictures that go on. A branch is a world of our own dialect, opened with its token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from worldline.core.errors import WorkerDiedError
from worldline.core.live.client import Branch, Rewind, Save
from worldline.core.live.server import Branched, Rewound, Saved
from worldline.core.walk import Stepped, frames_digest
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, SavedReply, StepRequest
from worldline.runtime.world_start import world_start
from worldline.server.errands import Errand, Errands
from worldline.server.history import History, seconds_at
from worldline.server.live.beginning import Family, Fork
from worldline.server.recovery import Recovery
from worldline.server.services import Services
from worldline.server.timemachine import TimeMachine
from worldline.server.waiting import in_thread, stop
from worldline.server.walks import Restore, Wish


class SessionWalk:
    """Of the session that `request` opened; `again` makes the request once more."""

    def __init__(
        self,
        services: Services,
        request: OpenRequest,
        opened: OpenReply,
        *,
        picture: bytes,
        again: Callable[[], Awaitable[OpenRequest]],
        family: Family,
    ) -> None:
        self.history = History(request.prompt)
        self.history.opened(opened)
        self.errands = Errands()
        self._services = services
        self._opened = opened
        self._again = again
        self._family = family
        self._recovery = Recovery(services)
        self._hashes = services.engine.info.mode == "exact"
        self._readers: set[asyncio.Task[Any]] = set()  # of pictures
        start = world_start(request, opened, picture=picture)
        self._machine = TimeMachine(
            services, opened, self.history, start=start, again=again, settled=self._settled
        )

    @property
    def nbytes(self) -> int:
        """See `walks.Walking`."""
        return self.history.nbytes

    def ask(self, wish: Wish, tell: Callable[[Any], None]) -> None:
        """See `walks.Walking`."""
        wish = self._machine.resolved(wish)
        self.errands.put(Errand(partial(self._go, wish), tell))

    async def pause(self, made: int) -> None:
        """Between two chunks, `made` of them so far: do what is asked."""
        while self.errands:
            try:
                await self.errands.run_first()
            except WorkerDiedError as error:
                await self.rescue(error, made)

    async def rescue(self, error: WorkerDiedError, made: int) -> None:
        """Stand in the next worker as in the last. Raises: `error` when none comes."""
        while True:
            self._recovery.begin(error, made)
            await self._recovery.worker(error, given_up=lambda: False)
            try:
                await self._recovery.stand(await self._again(), self.history)
            except WorkerDiedError as again:
                error = again
            else:
                return

    def made(self, step: StepRequest, result: StepResult, encoding: asyncio.Task[Any]) -> None:
        """A chunk; its memory goes back when it is encoded, and its digest is taken."""
        made = self.history.made(step, result)
        readers: set[asyncio.Task[Any]] = {encoding}
        if self._hashes:
            task = asyncio.create_task(self._hash(step.chunk_index, result, made))
            readers.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            readers.discard(task)
            if not readers:
                result.release()

        # Here and not in the tasks: one cancelled before its first step never runs a line.
        for reader in tuple(readers):
            self._readers.add(reader)
            reader.add_done_callback(done)
            reader.add_done_callback(self._readers.discard)

    async def close(self) -> None:
        """Return when nothing of it works any more; who asked is told."""
        self.errands.close()
        await stop(*self._readers)

    async def _hash(self, place: int, result: StepResult, made: Stepped) -> None:
        frames = result.frames
        digest = await in_thread(self._services.encoders, lambda: frames_digest(frames))
        self.history.hashed(place, made, digest)

    async def _settled(self) -> None:
        if self._readers:
            await asyncio.wait(self._readers)

    async def _go(self, wish: Wish) -> Rewound | Branched | Saved | SavedReply:
        match wish:
            case Rewind():
                chunk = self._machine.place_of(wish.chunk)
                await self._machine.go_back(chunk)
                return self._stands()
            case Restore(path):
                await self._machine.restore(path)
                return self._stands()
            case Branch():
                return await self._branch(wish)
            case Save():
                return await self._save(wish)
            case _:
                return await self._machine.snapshot()

    def _stands(self) -> Rewound:
        chunk = self.history.place
        seconds = seconds_at(chunk, self._opened)
        return Rewound(chunk=chunk, seconds=seconds, number=0, prompt=self.history.prompt)

    async def _branch(self, wish: Branch) -> Branched:
        chunk = self._machine.place_of(wish.chunk)
        name = self._family.reserve()
        try:
            reply, history = await self._machine.branch(name, chunk)
        except BaseException:
            self._family.give_up(name)
            raise
        token = self._family.found(name, Fork(reply, history, (), self._machine.start))
        return Branched(id=wish.id, world=name, token=token, url=f"/#rejoin={token}", chunk=chunk)

    async def _save(self, wish: Save) -> Saved:
        data = await self._machine.save()
        saved = self._services.saves.put(self._opened.session_id, data)
        place = self.history.place
        return Saved(
            id=wish.id,
            url=saved.url,
            bytes=len(data),
            chunks=place,
            seconds=seconds_at(place, self._opened),
        )
