"""The generate loop of one live session.

Chunk i+1 is generated while chunk i is encoded and sent, and events are listened to all the time;
nothing runs further ahead than that. Every chunk is asked for in a turn of the device, and controls
are sampled once that is granted. With output pacing the sending is waited for instead, as the
mainline does.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import NamedTuple

import msgspec

from worldline.core.clock import to_ms
from worldline.core.control import ChunkControls
from worldline.core.errors import WorkerDiedError, WorldlineError
from worldline.core.messages import encode_message, pack_batch
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, StepRequest
from worldline.server.encoding import EncodedChunk, encode, headers
from worldline.server.inbox import Inbox
from worldline.server.logs import log
from worldline.server.outbox import Outbox
from worldline.server.pacing import Pace, after_sending, wait_for
from worldline.server.reports import ChunkReport, forward_stages, to_stats
from worldline.server.requests import Playback
from worldline.server.services import Services
from worldline.server.session_walk import SessionWalk
from worldline.server.waiting import stop

logger = logging.getLogger("worldline.server.chunk")


class _Chunk(NamedTuple):
    """A generated chunk on its way out; times in seconds of the services' clock."""

    number: int
    request_id: str
    controls: ChunkControls
    forward: dict[str, int]
    started: float
    prepare_s: float
    forward_s: float
    encoding: asyncio.Task[tuple[EncodedChunk, float]]


class _Written(NamedTuple):
    """Seconds spent on the messages of one chunk."""

    pack_s: float
    header_s: float
    payload_s: float


class LiveSession:
    """Generates and sends until `max_chunks`, an error, or cancellation."""

    def __init__(
        self,
        services: Services,
        playback: Playback,
        *,
        opened: OpenReply,
        walk: SessionWalk,
        inbox: Inbox,
        outbox: Outbox,
    ) -> None:
        self._services = services
        self._clock = services.clock
        self._playback = playback
        self._opened = opened
        self._walk = walk
        self._inbox = inbox
        self._outbox = outbox
        self._pace = Pace(self._clock.now())

    async def run(self) -> None:
        """Return once the last of `max_chunks` was written; without a limit only errors end it.

        Raises: the engine's errors, SocketClosed. No task, thread or frame of this session is left
        when it ends, however it ends.
        """
        sending: asyncio.Task[None] | None = None
        chunk: _Chunk | None = None
        index = 0
        try:
            while index != self._playback.max_chunks:
                chunk = await self._generate(index)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._deliver(chunk))
                if self._playback.pacing:
                    await sending
                index += 1
            if sending is not None:
                await sending
        except WorldlineError:
            if sending is not None:
                await sending  # what was made before the error is still shown
            raise
        finally:
            try:
                await stop(sending, chunk and chunk.encoding)
            finally:
                await self._walk.close()
                self._services.device.forget(self._opened.session_id)

    async def _generate(self, index: int) -> _Chunk:
        """Ask for one chunk, and start to encode it the moment it is there."""
        await self._walk.pause(index)
        started = self._clock.now()
        controls: ChunkControls | None = None
        while True:
            try:
                async with self._services.device.turn(
                    self._opened.session_id, deadline=self._deadline(started)
                ):
                    granted = self._clock.now()
                    controls = controls or self._inbox.sample(self._opened.chunk)
                    step = self._step(controls)
                    prepared = self._clock.now()
                    result = await self._services.engine.step(step)
                break
            except WorkerDiedError as error:
                await self._walk.rescue(error, index)
        forwarded = self._clock.now()
        encoding = asyncio.create_task(self._encode(result))
        self._walk.made(step, result, encoding)
        return _Chunk(
            number=index,
            request_id=f"{self._opened.session_id}_{uuid.uuid4()}",
            controls=controls,
            forward=forward_stages(result.timings),
            started=started,
            prepare_s=prepared - granted,
            forward_s=forwarded - prepared,
            encoding=encoding,
        )

    def _step(self, controls: ChunkControls) -> StepRequest:
        return StepRequest(
            session_id=self._opened.session_id,
            chunk_index=self._walk.history.place,
            actions=controls.actions,
            prompt=controls.prompt,
            keep=True,
        )

    def _deadline(self, now: float) -> float:
        """When this chunk should be there: when it is to leave, or a chunk's length from now."""
        if self._playback.pacing:
            return self._pace.next_send
        frames = self._opened.frames_in_chunk(self._walk.history.place)
        return now + frames / self._playback.fps

    async def _encode(self, result: StepResult) -> tuple[EncodedChunk, float]:
        start = self._clock.now()
        encoded = await encode(result.frames, self._playback.output, self._services.encoders)
        return encoded, self._clock.now() - start

    async def _deliver(self, chunk: _Chunk) -> None:
        """Pace, write the frames, then log, count and send what it took."""
        encoded, build_s = await chunk.encoding
        waited_s = await self._wait_for_pace(chunk.controls.event_id, encoded.shape[0])
        written = await self._write(chunk, encoded)
        report = self._report(chunk, encoded, waited_s=waited_s, build_s=build_s, written=written)
        fields = msgspec.structs.asdict(report)
        log(logger, logging.INFO, "chunk", **fields)
        self._services.metrics.count_chunk(report)
        await self._outbox.send(encode_message(to_stats(report)))

    async def _wait_for_pace(self, event_id: int | None, frames: int) -> float:
        if not self._playback.pacing:
            return 0.0
        self._pace, seconds = wait_for(self._pace, self._clock.now(), event_id)
        if seconds:
            await self._clock.sleep(seconds)
        self._pace = after_sending(self._pace, self._clock.now(), frames, self._playback.fps)
        return seconds

    async def _write(self, chunk: _Chunk, encoded: EncodedChunk) -> _Written:
        pack_s = header_s = payload_s = 0.0
        batches = headers(encoded, request_id=chunk.request_id, chunk_index=chunk.number)
        for header, payload in zip(batches, encoded.payloads, strict=True):
            start = self._clock.now()
            event_id = chunk.controls.event_id
            if event_id is not None:
                header = msgspec.structs.replace(header, event_id=event_id)
            parts = pack_batch(header, payload.data)
            pack_s += self._clock.now() - start
            times = await self._outbox.send(*parts)
            payload_s += times[-1]
            header_s += sum(times[:-1])
        return _Written(pack_s, header_s, payload_s)

    def _report(
        self,
        chunk: _Chunk,
        encoded: EncodedChunk,
        *,
        waited_s: float,
        build_s: float,
        written: _Written,
    ) -> ChunkReport:
        return ChunkReport(
            session_id=self._opened.session_id,
            request_id=chunk.request_id,
            chunk_index=chunk.number,
            event_id=chunk.controls.event_id,
            condition_kinds=chunk.controls.kinds,
            request_prepare_ms=to_ms(chunk.prepare_s),
            scheduler_forward_ms=to_ms(chunk.forward_s),
            forward=chunk.forward,
            pace_wait_ms=to_ms(waited_s),
            header_pack_ms=to_ms(written.pack_s),
            header_write_ms=to_ms(written.header_s),
            payload_build_ms=to_ms(build_s),
            payload_write_ms=to_ms(written.payload_s),
            ws_write_ms=to_ms(written.header_s + written.payload_s),
            chunk_total_ms=to_ms(self._clock.now() - chunk.started),
            num_batches=len(encoded.payloads),
            num_frames=encoded.shape[0],
            frame_shape=tuple(encoded.shape[1:]),
            raw_bytes=encoded.raw_bytes,
            wire_bytes=encoded.wire_bytes,
            content_type=encoded.output.content_type,
        )
