"""One live world: an actor with one loop that samples, generates and shows, chunk by chunk.

    wait for the governor -> wait for the device -> sample the hands -> step -> show as it comes

Controls are sampled after the device was granted, right before the step goes out. Pictures are
shown by a second task, latent frame by latent frame, while the chunk is still being made; at most
two chunks have pictures that nobody has read. Everything else (inputs, pause, reports) only changes
what the loop finds next. Knows the engine and an `Audience`; nothing of sockets or viewers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

from worldline.core.errors import (
    CapacityError,
    SessionClosedError,
    WorkerDiedError,
    WorldlineError,
)
from worldline.core.hands import MAX_WAITING
from worldline.core.live.client import (
    Branch,
    Camera,
    Enter,
    Input,
    Keys,
    Pad,
    Pause,
    Playhead,
    Pointer,
    Prompt,
    Release,
    Reset,
    Resume,
    Rewind,
    Save,
    Script,
    Settings,
)
from worldline.core.live.server import Moment, Opened, Received, ServerMessage, StateChange
from worldline.core.live.shared import State
from worldline.core.states import follow
from worldline.server.device import Device, Turn
from worldline.server.live.beginning import Beginning
from worldline.server.live.entering import Pixels
from worldline.server.live.frames import Audience
from worldline.server.live.opening import Opening, to_opened
from worldline.server.live.rescue import Rescue
from worldline.server.live.travel import Travel
from worldline.server.live.walk import Walk
from worldline.server.logs import log
from worldline.server.services import Services
from worldline.server.waiting import change, stop

logger = logging.getLogger("worldline.server")

Wanted = Literal["live", "paused", "parked"]
PATIENT_S: Final = 2.0  # until opening and resetting should be done
RETRY_S: Final = 1.0  # until a parked world that finds no memory tries again
_PLAIN: Final = Beginning()


class LiveWorld:
    """Made when there is a seat. `open`, then `run` in a task of the caller's, then `close`.

    `close` must be called whatever became of the others: it alone lets the engine go.
    """

    def __init__(
        self,
        services: Services,
        world_id: str,
        enter: Enter,
        image: Pixels | None,
        *,
        device: Device,
        broadcast: Audience,
        beginning: Beginning = _PLAIN,
    ) -> None:
        self.id = world_id
        self._services = services
        self._engine = services.engine
        self._clock = services.clock
        self._device = device
        self._audience = broadcast
        self._enter = enter
        self._opening = Opening(services, enter, image, beginning=beginning)
        self._beginning = beginning
        self._rescue = Rescue(services, world_id, self._opening, audience=broadcast)
        self._walk: Walk | None = None
        self._travel: Travel | None = None
        self._known = False  # to the engine
        self._state: State = "queued"
        self._wanted: Wanted = "live"
        self._stands: Wanted = "live"  # what the loop does; `state` may say more
        self._resting: list[int] = []  # ids that are applied when the world has stopped
        self._changed = asyncio.Event()
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle = asyncio.Event()  # nothing of `run` is left
        self._idle.set()
        self._shutting = asyncio.Lock()

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    @property
    def opened(self) -> Opened:
        """The world as it is now, for the one who holds the controls."""
        walk = self._open()
        return to_opened(
            walk.reply,
            prompt=walk.prompt,
            seed=self._travelled().seed,
            speed=walk.controls.hands.speed,
            first_frame=walk.production.next_number,
            state=self._state,
        )

    @property
    def recovering(self) -> bool:
        """Whether its worker died and it waits for another."""
        return self._rescue.waiting

    @property
    def moments(self) -> Sequence[Moment]:
        """Its timeline, for who takes the controls."""
        return () if self._walk is None else self._walk.moments.all

    async def open(self) -> Opened:
        """Start it in the engine. Raises: what the engine raises."""
        self._become("opening")
        self._known = True
        begun = await self._rescue.open()
        walk = self._walk = Walk(
            self._services,
            begun.reply,
            self._enter,
            device=self._device,
            history=begun.history,
            audience=self._audience,
        )
        walk.production.tape = begun.tape
        walk.moments.begin(begun.moments)
        self._travel = Travel(
            self._services,
            walk,
            start=begun.start,
            opening=self._opening,
            beginning=self._beginning,
            audience=self._audience,
            rouse=self._changed.set,
        )
        self._services.walks.open(self.id, self._travel)
        self._become("live")
        log(logger, logging.INFO, "world opened", session_id=self.id)
        return self.opened

    async def run(self) -> None:
        """Generate until it is complete, drained or closed.

        Raises: what the engine or the audience raises, after what was made before has been shown.
        Nothing of it is left when this returns; `close` is still to be called.
        """
        production = self._open().production
        self._idle.clear()
        making = asyncio.create_task(self._make())
        showing = asyncio.create_task(production.show())
        try:
            await self._either(making, showing)
            if not self._closing.done():
                production.finish()
                await self._either(showing)
            for task in (showing, making):
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            production.give_up()
            try:
                await stop(making, showing)
            finally:
                production.drop()
                await production.close()
                self._idle.set()

    async def close(self, reason: str = "") -> None:
        """Return once the engine holds nothing of it; calling it again does no harm."""
        if not self._closing.done():
            self._closing.set_result(None)
        async with self._shutting:
            if self._state == "closed":
                return
            self._services.walks.close(self.id)
            if self._travel is not None:
                self._travel.errands.close()
            await self._idle.wait()
            try:
                if self._known:
                    await self._engine.close(self.id)
            except WorldlineError as error:
                log(logger, logging.ERROR, "close failed", session_id=self.id, error=str(error))
            finally:
                self._device.forget(self.id)
                self._become("closed", reason)
                log(logger, logging.INFO, "world closed", session_id=self.id, reason=reason)

    def take(self, message: Input) -> list[ServerMessage]:
        """Fold an input at once; what to answer. Raises: WorldlineError, then nothing changed."""
        if self._state in ("queued", "opening", "closed") or self._closing.done():
            raise SessionClosedError("the world is not open", got=self._state)
        walk, now = self._open(), self._clock.now()
        match message:
            case Keys() | Pad() | Pointer() | Script() | Release() | Camera():
                walk.move(message)
            case Prompt():
                walk.say(message)
            case Rewind() | Branch() | Save():
                self._travelled().take(message)
            case Settings():
                walk.set(message)
                self._changed.set()
            case Pause():
                self._rest_by(message.id)
            case Resume():
                walk.note(message.id)
                self.resume()
            case Reset():
                self.reset(message.seed)
                walk.note(message.id)
            case _:
                walk.note(message.id)
        return [Received(id=message.id, server_ms=now * 1000)]

    def let_go(self) -> None:
        """Release everything that is held, and begin ids anew: another hand, or none."""
        self._resting.clear()
        if self._walk is not None:
            self._walk.controls.new_hand()
            self._walk.governor.playout.leave()

    def pass_on(self) -> None:
        """`let_go` for somebody else: speed and lead are what they were at the start."""
        if self._walk is not None:
            self._walk.pass_on()
        self.let_go()

    def playhead(self, report: Playhead, now: float) -> None:
        """Where the screen of the one with the controls is."""
        if self._walk is not None:
            self._walk.governor.playout.report(report.frame, report.stalls, now)
            self._changed.set()

    def pause(self) -> None:
        """Stop after the chunk in flight."""
        if self._wanted == "live":
            self._want("paused")

    def resume(self) -> None:
        """Go on, at the next chunk."""
        resting, self._resting = self._resting, []
        for id in resting:  # of pauses that never came about
            self._open().note(id)
        self._want("live")

    def park(self) -> None:
        """Move to host memory after the chunk in flight, until `resume`."""
        self._want("parked")

    def reset(self, seed: int | None = None) -> None:
        """Back to the start after the chunk in flight, its prompt too; None keeps the seed."""
        self._travelled().reset(seed)

    def drain(self) -> None:
        """Say so, and let `run` return after the chunk in flight."""
        if self._state in ("live", "paused", "parked"):
            self._become("draining")
            self._changed.set()

    async def _make(self) -> None:
        """The loop: whatever is wanted, one thing at a time, in whichever worker there is."""
        walk = self._open()
        while walk.production.next_chunk != self._enter.max_chunks and self._state != "draining":
            try:
                await self._make_next(walk)
            except WorkerDiedError as error:
                await self._recover(walk, error)

    async def _make_next(self, walk: Walk) -> None:
        travel = self._travelled()
        if self._stands != self._wanted != "live":
            await self._rest(walk)
        elif travel.errands:
            await travel.errands.run_first()
        elif self._stands != self._wanted:
            await self._go_on(walk)
        elif self._stands != "live":
            self._rested()
            await change(self._clock, None, self._changed)
        else:
            await self._make_one(walk)

    async def _recover(self, walk: Walk, error: WorkerDiedError) -> None:
        """Stand in another worker as in the last; whatever was wanted is done there."""
        seed = self._travelled().seed
        stands = await self._rescue.run(error, walk, seed=seed, given_up=self._drains)
        if stands and self._stands != "live":
            self._stand("live")

    def _drains(self) -> bool:
        return self._state == "draining"

    async def _make_one(self, walk: Walk) -> None:
        ready = now = self._clock.now()
        while self._may_make():
            others_s = self._device.others_s(self.id)
            left = walk.governor.start_at(now, others_s=others_s) - now
            if left <= 0:
                break
            await change(self._clock, left, self._changed)
            now = self._clock.now()
        if self._may_make():
            await walk.production.make(self._may_make, waited_s=now - ready)

    def _may_make(self) -> bool:
        busy = self._travelled().errands or self._state == "draining"
        return self._wanted == "live" and not busy

    async def _rest(self, walk: Walk) -> None:
        wanted = self._wanted
        if wanted == "parked":
            await self._engine.park(self.id)  # without a turn: others step between its buffers
        walk.governor.playout.stop()
        self._stand(wanted)
        self._rested()

    async def _go_on(self, walk: Walk) -> None:
        if self._stands == "parked":
            try:
                await self._engine.unpark(self.id)
            except CapacityError as error:
                log(
                    logger,
                    logging.WARNING,
                    "no memory to go on",
                    session_id=self.id,
                    error=str(error),
                )
                await change(self._clock, RETRY_S, self._changed)
                return
        walk.governor.playout.stop()
        self._stand("live")

    def _rest_by(self, id: int) -> None:
        """Pause by input `id`, whose receipt follows when the world stands still."""
        self.pause()
        self._resting = [*self._resting, id][-MAX_WAITING:]
        self._changed.set()  # where it stands already, the loop says so: after the first receipt

    def _rested(self) -> None:
        """The world stands still: that is what was asked for."""
        production = self._open().production
        resting, self._resting = self._resting, []
        for id in resting:
            production.tell_applied(id, production.next_chunk)

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._changed.set()

    def _stand(self, how: Wanted) -> None:
        self._stands = how
        if self._state != "draining":
            self._become(how)

    def _become(self, state: State, reason: str = "") -> None:
        self._state = follow(self._state, state)
        self._audience.tell(StateChange(state=state, reason=reason))

    def _turn(self) -> AbstractAsyncContextManager[Turn]:
        return self._device.turn(self.id, deadline=self._clock.now() + PATIENT_S)

    async def _either(self, *tasks: asyncio.Task[None]) -> None:
        """Until one of the tasks has ended, or the world is being closed."""
        await asyncio.wait({*tasks, self._closing}, return_when=asyncio.FIRST_COMPLETED)

    def _travelled(self) -> Travel:
        assert self._travel is not None, "open() first"
        return self._travel

    def _open(self) -> Walk:
        assert self._walk is not None, "open() first"
        return self._walk
