"""The chunks of one world: asked of the engine in turn, and shown as they come.

    a free slot -> the device's turn -> sample the hands -> step -> pictures to the audience

`make` and `show` run as two tasks: while chunk `i` is encoded, chunk `i+1` is made, and at most two
chunks have pictures that nobody has read. Receipts of a chunk follow the pictures that show them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from worldline.core.chunk import Decoded
from worldline.core.errors import AbortedError, WorkerDiedError
from worldline.core.live.server import Applied, Chunk
from worldline.runtime.handle import SLOTS_PER_SESSION
from worldline.runtime.protocol import OpenReply, StepRequest
from worldline.server.device import Device
from worldline.server.history import History, request_of
from worldline.server.live.controls import Controls, Taken
from worldline.server.live.flight import Flight
from worldline.server.live.frames import Audience, ChunkFrames
from worldline.server.live.governor import Cost, Governor
from worldline.server.live.hashing import Hashing
from worldline.server.live.moments import Moments
from worldline.server.live.tape import Tape
from worldline.server.logs import log
from worldline.server.services import Services

logger = logging.getLogger("worldline.server.chunk")

SAVING: Final = 0.5  # share of the usual quality while the encoder has to save


class Production:
    """Of one open session. `next_chunk` and `next_number` count all that was made; where the walk
    stands, which may have gone back, is the `history`'s to say."""

    def __init__(
        self,
        services: Services,
        opened: OpenReply,
        *,
        device: Device,
        controls: Controls,
        governor: Governor,
        history: History,
        moments: Moments,
        audience: Audience,
    ) -> None:
        self.next_chunk = self.next_number = 0
        self._engine = services.engine
        self._device = device
        self._clock = services.clock
        self._opened = opened
        self._controls = controls
        self._governor = governor
        self._audience = audience
        self.tape: Tape | None = None  # followed instead of the hands while there is one
        self._history = history
        self._moments = moments
        exact = services.engine.info.mode == "exact"
        self._hashing = Hashing(history, services.encoders) if exact else None
        self._slots = asyncio.Semaphore(SLOTS_PER_SESSION)  # chunks with unread pictures
        self._queue: asyncio.Queue[tuple[Flight, ChunkFrames | None] | None] = asyncio.Queue()
        self._making: Flight | None = None
        self._restarted = False
        self._saving = False

    async def make(self, allowed: Callable[[], bool], *, waited_s: float) -> None:
        """The next chunk, unless it is not `allowed` any more once the device is free.

        One that the hand changed its mind about leaves everything as it was. Raises: what the
        engine raises.
        """
        await self._slots.acquire()
        asked = self._clock.now()
        flight: Flight | None = None
        deadline = self._governor.deadline(asked)
        try:
            async with self._device.turn(self._opened.session_id, deadline=deadline) as turn:
                if not allowed():
                    return
                flight, step = self._sample(asked)
                flight.waited_s, flight.device_s = waited_s, turn.waited_s
                await self._step(flight, step)
        finally:
            self._making = None
            if flight is None:
                self._slots.release()
            elif not flight.landed:
                flight.drop()

    def reconsider(self) -> None:
        """The hand changed its mind: begin the chunk that is being made anew, if it is worth it."""
        flight, now = self._making, self._clock.now()
        if flight is None or flight.handed_on or flight.given_up or self._restarted:
            return
        if self._governor.may_restart(flight.stepped, now):
            flight.given_up = self._engine.abort(self._opened.session_id)

    def give_up(self) -> None:
        """Let a step that is running end early, if it still can."""
        if self._making is not None:
            self._engine.abort(self._opened.session_id)

    def withdraw(self) -> None:
        """What is being made is not wanted any more: end it early if nobody has seen any of it."""
        flight = self._making
        if flight is not None and not (flight.handed_on or flight.given_up):
            flight.given_up = self._engine.abort(self._opened.session_id)

    async def settled(self) -> None:
        """Return once nobody reads what was made so far, and the digests of all of it are known.

        Nothing is made meanwhile.
        """
        held = 0
        try:
            while held < SLOTS_PER_SESSION:
                await self._slots.acquire()
                held += 1
        finally:
            for _ in range(held):
                self._slots.release()
        await self.hashed()

    async def hashed(self) -> None:
        """Return once the digests of everything made so far are known."""
        if self._hashing is not None:
            await self._hashing.settle()

    async def close(self) -> None:
        """Return when nothing works beside it any more."""
        await self._moments.close()
        if self._hashing is not None:
            await self._hashing.close()

    def finish(self) -> None:
        """Let `show` return once everything made so far is shown."""
        self._queue.put_nowait(None)

    def drop(self) -> None:
        """Give back the memory of what nobody will see any more. Both tasks have ended."""
        while not self._queue.empty():
            if (item := self._queue.get_nowait()) is not None:
                item[0].drop()

    async def show(self) -> None:
        """Show what is made, in order, until `finish`. Raises: what the audience raises."""
        while (item := await self._queue.get()) is not None:
            flight, pictures = item
            try:
                if pictures is None:
                    self._report(flight)
                else:
                    await self._show(flight, pictures)
            except BaseException:
                flight.drop()
                raise

    def _sample(self, asked: float) -> tuple[Flight, StepRequest]:
        """The controls as they are now, for the step that goes out at once."""
        now = self._clock.now()
        taken = self._controls.take(now)
        flight = Flight(
            self.next_chunk,
            taken,
            place=self._history.place,
            first=self.next_number,
            hand=self._controls.hand,
            asked=asked,
            on_free=self._slots.release,
        )
        flight.stepped = now
        return flight, self._step_for(taken)

    def _step_for(self, taken: Taken) -> StepRequest:
        """What the engine is asked: by the tape while there is one, else by the hands."""
        place, fast = self._history.place, "steps" in self._governor.levers
        recorded = None if self.tape is None else self.tape.at(place)
        if recorded is not None:
            step = request_of(recorded, self._opened.session_id, place)
            return step if step.steps is not None or not fast else replace(step, steps=self._fewer)
        self.tape = None
        prompt = taken.prompt
        return StepRequest(
            session_id=self._opened.session_id,
            chunk_index=place,
            motions=taken.sample.motions,
            prompt=None if prompt is None else prompt.text,
            blend_chunks=0 if prompt is None else prompt.blend_chunks,
            steps=self._fewer if fast else None,
            keep=True,
        )

    @property
    def _fewer(self) -> int:
        return fewer(self._opened.steps)

    async def _step(self, flight: Flight, step: StepRequest) -> None:
        self._making = flight
        try:
            result = await self._engine.step(step, on_frames=partial(self._decoded, flight))
        except AbortedError:
            if not flight.given_up:
                raise
            self._controls.put_back()
            self._restarted = True
            return
        except WorkerDiedError:
            self.next_number += flight.frames  # those were seen; the chunk is made once more
            self._controls.put_back()
            raise
        except BaseException:
            self._controls.put_back()
            raise
        self._controls.keep()
        made = self._history.made(step, result)
        if self._hashing is not None:
            self._hashing.put(flight, result, made)
        flight.land(result, self._clock.now())
        self._queue.put_nowait((flight, None))
        self._restarted = False
        self.next_number += flight.frames
        self._governor.playout.made(self.next_number)
        self.next_chunk += 1

    def _decoded(self, flight: Flight, decoded: Decoded) -> None:
        self._queue.put_nowait((flight, flight.take(decoded)))

    async def _show(self, flight: Flight, pictures: ChunkFrames) -> None:
        if flight.hand != self._controls.hand:  # its ids mean nothing to who has the controls now
            pictures = pictures._replace(input=0)
        count = len(pictures.frames)
        if pictures.first:
            self._moments.offer(flight.place, pictures.number, pictures.frames[0])
        sent = await self._audience.show(pictures)
        now = self._clock.now()
        self._governor.shown(pictures.number, pictures.number + count, now)
        flight.shown(pictures, sent, now=now, fps=self._opened.fps)
        if flight.hand == self._controls.hand:
            for id, latent_frame in flight.taken.sample.applied:
                if latent_frame == pictures.latent_frame:
                    self.tell_applied(id, flight.index, latent_frame, at=flight.stepped)

    def tell_applied(
        self, id: int, chunk: int, latent_frame: int = 0, *, at: float | None = None
    ) -> None:
        """The second receipt of an input; `at` is when a chunk sampled it, None is now."""
        ms = 1000 * (self._clock.now() if at is None else at)
        self._audience.tell_holder(
            Applied(id=id, chunk=chunk, latent_frame=latent_frame, server_ms=ms)
        )

    def _report(self, flight: Flight) -> None:
        """After its last picture: what the chunk took, and what follows from that."""
        encode_s = sum(sent.encode_s for sent in flight.sent)
        work = max(flight.ended - flight.asked, encode_s)
        first = flight.place == 0 or flight.frames != self._opened.frames_in_chunk(1)
        self._governor.finished(
            Cost(flight.need_s, work, encode_s, flight.device_s), counts=not first
        )
        now = self._clock.now()
        chunk = Chunk(
            index=flight.index,
            frames=flight.frames,
            input=flight.taken.sample.inputs[-1] if flight.hand == self._controls.hand else 0,
            stages=flight.stages(now),
            bytes=sum(sent.bytes for sent in flight.sent),
            lead_ms=round(self._governor.playout.lead_s(now) * 1000, 3),
            real_time_factor=round(self._governor.real_time_factor, 4),
            misses=self._governor.misses,
            levers=self._governor.levers,
            place=flight.place,
        )
        self._audience.tell_holder(chunk)
        self._save()
        log(
            logger,
            logging.INFO,
            "chunk",
            session_id=self._opened.session_id,
            chunk_index=chunk.index,
            frames=chunk.frames,
            bytes=chunk.bytes,
            stages=chunk.stages,
            misses=chunk.misses,
            levers=chunk.levers,
        )

    def _save(self) -> None:
        saving = "encode_quality" in self._governor.levers
        if saving != self._saving:
            self._saving = saving
            self._audience.quality(SAVING if saving else 1.0)


def fewer(steps: int) -> int:
    """Denoise passes of a chunk that has to be cheaper: a quarter less, at least one."""
    return max(1, steps - max(1, steps // 4))
