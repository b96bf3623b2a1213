"""The time machine of one live world: what its visitors and its administrators ask of it.

Each wish is done between two chunks, in the world's own loop; everybody sees a rewind, and who
asked is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from worldline.core.errors import ControlError, WorldlineError
from worldline.core.live.client import Branch, Rewind, Save
from worldline.core.live.codes import failure
from worldline.core.live.server import Branched, Moment, Rewound, Saved, ServerMessage
from worldline.core.walk import WorldStart
from worldline.runtime.protocol import OpenRequest, SavedReply
from worldline.server.errands import Errand, Errands
from worldline.server.history import seconds_at
from worldline.server.live.beginning import Beginning, Fork
from worldline.server.live.frames import Audience
from worldline.server.live.opening import Opening
from worldline.server.live.walk import Walk
from worldline.server.services import Services
from worldline.server.timemachine import TimeMachine
from worldline.server.walks import Restore, Wish


class Travel:
    """Of one open world; `rouse` is called when there is something to do."""

    def __init__(
        self,
        services: Services,
        walk: Walk,
        *,
        start: WorldStart,
        opening: Opening,
        beginning: Beginning,
        audience: Audience,
        rouse: Callable[[], None],
    ) -> None:
        self._rouse = rouse
        self.errands = Errands()
        self._walk = walk
        self._beginning = beginning
        self._audience = audience
        self._opening = opening
        self._pictures: dict[str, Sequence[Moment]] = {}  # the timeline of each snapshot
        self._machine = TimeMachine(
            services,
            walk.reply,
            walk.history,
            start=start,
            again=self._request,
            settled=walk.production.settled,
        )

    @property
    def seed(self) -> int:
        """The walk's seed."""
        return self._machine.start.seed

    @property
    def nbytes(self) -> int:
        """See `walks.Walking`."""
        return self._walk.history.nbytes

    def take(self, message: Rewind | Branch | Save) -> None:
        """An input. Raises: ControlError, RateError, SnapshotError."""
        self.ask(message, partial(self._answer, message.id))
        self._walk.note(message.id)

    def ask(self, wish: Wish, tell: Callable[[Any], None]) -> None:
        """See `walks.Walking`."""
        wish = self._machine.resolved(wish)
        self.errands.put(Errand(partial(self._go, wish), tell))
        if isinstance(wish, Rewind | Restore):
            self._walk.will_go_back()
            self._walk.production.withdraw()
        self._rouse()

    def reset(self, seed: int | None) -> None:
        """Back to the start when there is a pause, its prompt too. Raises: RateError."""
        self.errands.put(Errand(partial(self._restart, seed)))
        self._walk.will_go_back()
        self._walk.prompt = self._walk.history.first_prompt
        self._rouse()

    async def _request(self) -> OpenRequest:
        request = await self._opening.request(self._walk.reply.session_id)
        return replace(request, seed=self.seed)

    def _answer(self, id: int, outcome: ServerMessage | WorldlineError) -> None:
        if isinstance(outcome, WorldlineError):
            outcome = failure(outcome, id=id)
        if not isinstance(outcome, Rewound):  # that one everybody was told
            self._audience.tell_holder(outcome)

    async def _go(self, wish: Wish) -> ServerMessage | SavedReply:
        match wish:
            case Rewind():
                return await self._rewind(wish)
            case Branch():
                return await self._branch(wish)
            case Save():
                return await self._save(wish)
            case Restore(path):
                return await self._restore(path)
            case _:
                return await self._snapshot()

    async def _restart(self, seed: int | None) -> None:
        await self._machine.restart(seed)
        self._walk.moments.cut(0)
        self._stands()

    async def _rewind(self, wish: Rewind) -> Rewound:
        chunk = self._machine.place_of(wish.chunk)
        await self._machine.go_back(chunk)
        self._walk.moments.cut(chunk)
        return self._stands()

    async def _snapshot(self) -> SavedReply:
        saved = await self._machine.snapshot()
        self._pictures[saved.path] = self._walk.moments.branch(saved.chunk)
        self._pictures = {path: self._pictures[path] for path in self._machine.taken}
        return saved

    async def _restore(self, path: str) -> Rewound:
        await self._machine.restore(path)
        self._walk.moments.cut(0)
        self._walk.moments.begin(self._pictures[path])
        told = self._stands()
        for moment in self._walk.moments.all:
            self._audience.tell_holder(moment)
        return told

    def _stands(self) -> Rewound:
        """The walk stands elsewhere, and everybody is told."""
        self._walk.went_back()
        chunk = self._walk.history.place
        told = Rewound(
            chunk=chunk,
            seconds=seconds_at(chunk, self._walk.reply),
            number=self._walk.production.next_number,
            prompt=self._walk.history.prompt,
        )
        self._audience.tell(told)
        return told

    async def _branch(self, wish: Branch) -> Branched:
        family = self._beginning.family
        if family is None:
            raise ControlError("this world cannot branch")
        chunk = self._machine.place_of(wish.chunk)
        name = family.reserve()
        try:
            reply, history = await self._machine.branch(name, chunk)
        except BaseException:
            family.give_up(name)
            raise
        moments = self._walk.moments.branch(chunk)
        token = family.found(name, Fork(reply, history, moments, self._machine.start))
        return Branched(id=wish.id, world=name, token=token, url=f"/#rejoin={token}", chunk=chunk)

    async def _save(self, wish: Save) -> Saved:
        saves, place = self._beginning.saves, self._walk.history.place
        if saves is None:
            raise ControlError("this world cannot be saved")
        data = await self._machine.save()
        saved = saves.put(self._walk.reply.session_id, data)
        return Saved(
            id=wish.id,
            url=saved.url,
            bytes=len(data),
            chunks=place,
            seconds=seconds_at(place, self._walk.reply),
        )
