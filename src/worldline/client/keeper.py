"""Keeps the connection of one world: reads it, heartbeats, and opens it again when it breaks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Final, get_args

import msgspec

from worldline.client.conversation import Conversation
from worldline.client.errors import ConnectionLostError, RefusedError
from worldline.client.line import ClientClock, Dial, Line, LineLost
from worldline.client.mending import Mending
from worldline.client.options import Patience
from worldline.core.errors import ProtocolError, WorldlineError
from worldline.core.live.client import ClientMessage
from worldline.core.live.codes import Close
from worldline.core.live.server import Failure, ServerMessage

MOST_WAITING_BYTES: Final = 64 * 2**20  # of frames nobody fetched; then the socket is not read
FIRST_PINGS: Final = 3
PING_GAP_S: Final = 0.1
QUIET_S: Final = 5.0  # between pings, at most
UNKNOWN_GRACE_S: Final = 60.0
NORMAL: Final = 1000
OWN_CODES: Final = range(4000, 5000)
PASSING: Final = frozenset({Close.TIMED_OUT, Close.TOO_MANY, Close.BUSY})  # the world is kept
SERVER_TYPES: Final = frozenset(struct.__struct_config__.tag for struct in get_args(ServerMessage))


class _Kind(msgspec.Struct):
    type: str


class Keeper:
    """Runs one task from `begin` to `stop`."""

    def __init__(self, talk: Conversation, clock: ClientClock, patience: Patience) -> None:
        self._talk = talk
        self._clock = clock
        self.patience = patience
        self.reconnects = 0
        self._line: Line | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._heard = 0.0
        self._full = False  # too much waits here: the socket is not read
        self._silent = False  # this connection was given up, for nothing was heard
        self._lived_from: float | None = None  # when this connection had the world
        self._mending = Mending(patience)
        self._why: WorldlineError | None = None  # there is no connection
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ServerMessage] = msgspec.msgpack.Decoder(
            ServerMessage
        )

    def reach(self, dial: Dial, url: str, tls: ssl.SSLContext | None) -> None:
        """Where to connect to, and how."""
        self._dial, self._url, self._tls = dial, url, tls

    def begin(self) -> None:
        """Start the task."""
        assert self._task is None, "a world is entered once"
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the task and the connection."""
        self._talk.end(None)
        self.notify()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # told to those who waited, see _run

    def notify(self) -> None:
        """Let everyone look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until it is so; looked at after every message and change."""
        while not reached():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def send(self, messages: Iterable[ClientMessage]) -> None:
        """Write messages; what a broken connection swallows is told by receipts."""
        for message in messages:
            if self._line is None:
                return
            try:
                await self._line.send(self._encoder.encode(message))
            except LineLost:
                return

    async def _run(self) -> None:
        try:
            while not self._talk.over:
                line = await self._connect()
                if line is not None:
                    await self._converse(line)
        except Exception as error:  # our own bug: whoever waits must hear of it
            self._talk.end(ConnectionLostError(f"the client failed: {error!r}"))
            raise
        finally:
            self.notify()

    async def _connect(self) -> Line | None:
        """A connection, or None once there is no hope left."""
        while (pause := self._mending.pause(self._clock.now(), self._grace_s())) is not None:
            if pause > 0:
                await self._clock.sleep(pause)
            try:
                return await self._dial(self._url, tls=self._tls, timeout=self.patience.connect_s)
            except LineLost as error:
                self._why = ConnectionLostError(error.reason)
                if self._talk.opened is None:
                    break
        self._talk.end(self._why)
        return None

    def _grace_s(self) -> float:
        ready = self._talk.ready
        grace = ready.limits.grace_ms / 1000 if ready is not None else 0.0
        return grace or UNKNOWN_GRACE_S

    async def _converse(self, line: Line) -> None:
        """Everything on one connection."""
        self._line, self._heard = line, self._clock.now()
        self._silent, self._lived_from = False, None
        heart = asyncio.create_task(self._beat(line))
        try:
            await self.send(self._talk.opening())
            while not (self._talk.over or self._talk.sent_away):
                await self._hear(await line.receive())
        except LineLost as error:
            self._broke(error)
        finally:
            self._line = None
            heart.cancel()
            try:
                await asyncio.wait({heart})
            finally:
                await line.close()
        if not self._talk.over:
            self._lose()

    async def _hear(self, data: bytes) -> None:
        self._heard = self._clock.now()
        try:
            message = self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            self._unreadable(data, error)
            return
        await self.send(self._talk.take(message))
        if self._talk.live and self._lived_from is None:
            self._lived_from = self._heard
        self.notify()
        self._full = True
        try:
            await self.until(lambda: self._waiting_bytes() < MOST_WAITING_BYTES or self._talk.over)
        finally:
            self._full, self._heard = False, self._clock.now()

    def _unreadable(self, data: bytes, error: msgspec.MsgspecError) -> None:
        """A newer server may say what we do not know; what we do know must be readable."""
        try:
            kind = msgspec.msgpack.decode(data, type=_Kind).type
        except msgspec.MsgspecError:
            kind = None
        if kind is None or kind in SERVER_TYPES:
            self._talk.end(ProtocolError("the server's message cannot be read", got=error))
            self.notify()

    def _waiting_bytes(self) -> int:
        return sum(len(waiting.frame.payload) for waiting in self._talk.frames)

    def _broke(self, error: LineLost) -> None:
        """A closed connection: the end, or a loss to recover from."""
        talk = self._talk
        self._why = ConnectionLostError(f"the server closed the connection: {error}")
        if error.code in OWN_CODES:
            passes = error.code in PASSING
            name = f"closed_{error.code}"
            talk.send_away(Failure(code=name, message=error.reason, retryable=passes, fatal=True))
        elif error.code == NORMAL and not self._silent:
            talk.end(None)
        elif talk.opened is None:
            talk.end(self._why)
        self.notify()

    def _lose(self) -> None:
        """There was a world on the connection that is gone: it is to be found again."""
        talk, now = self._talk, self._clock.now()
        after_s = 0.0
        if talk.sent_away and talk.setback is not None:
            refused = RefusedError(talk.setback)
            self._why, after_s = refused, refused.retry_after_s or 0.0
        lived_s = None if self._lived_from is None else now - self._lived_from
        self._mending.lost(now, lived_s=lived_s, after_s=after_s)
        self.reconnects += 1
        talk.lost()
        self.notify()

    async def _beat(self, line: Line) -> None:
        """Pings, and the playhead; a silent server is a broken connection."""
        for number in range(2**31):
            await self.send([self._talk.ping()])
            if self._talk.live:
                await self.send([self._talk.playhead()])
            await self._clock.sleep(PING_GAP_S if number < FIRST_PINGS else self._gap_s())
            if not self._full and self._clock.now() - self._heard > 2 * self._limit_s():
                self._silent = True
                await line.close()

    def _limit_s(self) -> float:
        ready = self._talk.ready
        beat = ready.limits.heartbeat_ms / 1000 if ready is not None else 0.0
        return beat or UNKNOWN_GRACE_S

    def _gap_s(self) -> float:
        return min(QUIET_S, self._limit_s() / 3)
