"""One socket of the mainline endpoint, from accept to close.

Three tasks: the writer (outbox), the reader, which never stops listening, and the visit: init,
seat, engine, generate loop, and everything given back in reverse order. The socket ends when the
visit or the reader does.

    init (checked, picture decoded) -> warm -> seat -> open -> generate ... -> close -> seat free
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket

from worldline.core.errors import (
    CapacityError,
    InputError,
    InvalidEventError,
    InvalidInitError,
    ProtocolError,
    WorldlineError,
)
from worldline.core.events import Event, Init, decode_message, script_from_init
from worldline.core.messages import (
    BUSY,
    COMPLETE,
    INVALID_EVENT,
    INVALID_INIT,
    LOOP_FAILED,
    clip,
    encode_message,
    error_message,
)
from worldline.runtime.protocol import OpenReply
from worldline.server.inbox import Inbox
from worldline.server.logs import log
from worldline.server.outbox import Outbox, SocketClosed
from worldline.server.requests import LiveRequest, Playback, read_request, to_open
from worldline.server.services import Services
from worldline.server.session import LiveSession
from worldline.server.transport import SocketTransport
from worldline.server.waiting import stop, within

logger = logging.getLogger("worldline.server")

NOT_READY = "the server is not ready"
NORMAL, INTERNAL, TRY_LATER = 1000, 1011, 1013
LOGGED_BYTES = 500
YIELD_EVERY = 64  # messages read from one socket before the others get a turn


class _Ended(Exception):
    """Ends the visit with a close frame; the message before it is sent unless it was already."""

    def __init__(
        self, content: str, error: WorldlineError, *, code: int, told: bool = False
    ) -> None:
        super().__init__(content)
        self.content, self.error, self.code, self.told = content, error, code, told


async def realtime(socket: WebSocket) -> None:
    """The endpoint `/v1/realtime_video/generate`."""
    services: Services = socket.app.state.services
    await socket.accept()
    visitor = Visitor(socket, services)
    if not services.sockets.take(visitor.id):
        await visitor.turn_away()
        return
    try:
        await visitor.serve()
    finally:
        services.sockets.release(visitor.id)


class Visitor:
    """One connection, which is one session."""

    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._services = services
        self._config = services.config
        self.id = uuid.uuid4().hex
        self._inbox = Inbox(self._config.max_prompt_chars)
        self._outbox = Outbox(SocketTransport(socket), services.clock)
        self._inits: asyncio.Queue[Init | WorldlineError] = asyncio.Queue()
        self._init_taken = False  # an init is being checked, or was accepted
        self._failed_inits = 0

    async def serve(self) -> None:
        """Run until the visit is over or the peer has left; nothing of either stays behind."""
        writer = asyncio.create_task(self._outbox.run())
        reader = asyncio.create_task(self._guard(self._read()))
        visit = asyncio.create_task(self._guard(self._visit()))
        try:
            await asyncio.wait({reader, visit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await stop(reader, visit)
            finally:
                await stop(writer)

    async def turn_away(self) -> None:
        """Tell the peer that there are too many, without listening to it."""
        limit = self._services.sockets.count
        error = CapacityError("too many sockets are open", expected=f"at most {limit}")
        writer = asyncio.create_task(self._outbox.run())
        try:
            await self._end(_Ended(BUSY, error, code=error.close_code))
        finally:
            await stop(writer)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of this socket; whatever ends it, the peer is told why."""
        try:
            await work
        except _Ended as end:
            await self._end(end)
        except SocketClosed:
            return
        except Exception as error:
            await self._end(self._loop_failed(error))

    async def _read(self) -> None:
        """Listen until the peer leaves; every message is dealt with before the next is read."""
        count = 0
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            try:
                self._take(message.get("bytes"))
            except WorldlineError as error:
                await self._refuse(error)
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _take(self, data: bytes | None) -> None:
        if data is None:
            raise ProtocolError("text frames are not read", expected="a binary message", got="text")
        message = decode_message(data)
        if isinstance(message, Event):
            if not self._init_taken:
                raise InvalidInitError("an event came first", expected="init", got="event")
            self._inbox.apply(message)
            return
        if self._init_taken:
            raise InvalidEventError("the session has begun", expected="an event", got="init")
        self._inbox.start(script_from_init(message))
        self._init_taken = True
        self._inits.put_nowait(message)

    async def _refuse(self, error: WorldlineError) -> None:
        """Answer a message that cannot be used; before the session it counts as a failed init."""
        if type(error) is ProtocolError:  # unreadable: what it should have been depends on when
            kind = InvalidEventError if self._init_taken else InvalidInitError
            error = kind(error.message, expected=error.expected, got=error.got)
        if self._init_taken:
            await self._send_error(INVALID_EVENT, error)
            return
        self._failed_inits += 1
        await self._send_error(INVALID_INIT, error)
        if self._failed_inits == self._config.init_attempts:
            self._inits.put_nowait(error)

    async def _visit(self) -> None:
        while True:
            refusal = await self._sit(await self._next_request())
            if refusal is None:
                await self._outbox.close(NORMAL, COMPLETE)
                return
            await self._reject(refusal)

    async def _next_request(self) -> LiveRequest:
        """The next usable init. Raises: _Ended when none comes in time, or too many fail."""
        services = self._services
        while True:
            init = await self._next_init()
            try:
                return await read_request(
                    init,
                    info=services.engine.info,
                    config=self._config,
                    pool=services.readers,
                )
            except (InputError, ProtocolError) as error:
                await self._reject(error)

    async def _next_init(self) -> Init:
        limit = self._config.init_timeout_s
        try:
            init = await within(self._services.clock, limit, self._inits.get())
        except TimeoutError:
            late = InvalidInitError("no init arrived", expected=f"init within {limit:g} s")
            raise _Ended(INVALID_INIT, late, code=late.close_code) from None
        if isinstance(init, WorldlineError):
            raise _Ended("too many invalid requests", init, code=init.close_code, told=True)
        return init

    async def _reject(self, error: WorldlineError) -> None:
        """The init cannot be used: forget it and what came after it, and let another one come."""
        self._inbox.start(None)
        self._init_taken = False
        await self._refuse(error)

    async def _wait_for_seat(self) -> None:
        services, config = self._services, self._config
        try:
            await services.readiness.wait(services.clock, config.warmup_wait_s)
        except CapacityError as error:
            raise _Ended(NOT_READY, error, code=TRY_LATER) from None
        try:
            await services.seats.wait(self.id, services.clock, config.seat_wait_s)
        except CapacityError as error:
            raise _Ended(BUSY, error, code=error.close_code) from None

    async def _sit(self, request: LiveRequest) -> InputError | None:
        """Wait for a seat and use it for one session; what is refused at opening is returned.

        Raises: _Ended when there is no seat or the session fails, SocketClosed. The seat is free
        when this ends, and the engine has let go of the session before.
        """
        await self._wait_for_seat()
        end = "disconnected"
        try:
            try:
                opened = await self._open(request)
            except InputError as error:
                end = "refused"
                return error
            playback = request.playback
            del request  # its picture is not needed for the rest of the session
            await self._live(playback, opened)
            end = "complete"
            return None
        except SocketClosed:
            raise
        except Exception as error:
            end = "failed"
            raise self._loop_failed(error) from error
        finally:
            self._services.metrics.count_session(end)
            await self._stand_up()

    async def _open(self, request: LiveRequest) -> OpenReply:
        services = self._services
        opening = await to_open(
            request, session_id=self.id, config=self._config, pool=services.readers
        )
        opened = await services.engine.open(opening)
        size = f"{opened.width}x{opened.height}"
        log(logger, logging.INFO, "session opened", session_id=self.id, size=size)
        return opened

    async def _live(self, playback: Playback, opened: OpenReply) -> None:
        session = LiveSession(
            self._services, playback, opened=opened, inbox=self._inbox, outbox=self._outbox
        )
        await session.run()

    async def _stand_up(self) -> None:
        try:
            await self._services.engine.close(self.id)
        except WorldlineError as error:
            log(logger, logging.ERROR, "close failed", session_id=self.id, error=str(error))
        finally:
            self._services.seats.release(self.id)
            log(logger, logging.INFO, "session closed", session_id=self.id)

    async def _send_error(self, content: str, error: WorldlineError) -> None:
        self._services.metrics.count_error(error.code)
        said = clip(str(error), LOGGED_BYTES)  # it may quote what was sent
        log(logger, logging.WARNING, "refused", session_id=self.id, content=content, error=said)
        await self._outbox.send(encode_message(error_message(content, error)))

    async def _end(self, end: _Ended) -> None:
        with suppress(SocketClosed):
            if not end.told:
                await self._send_error(end.content, end.error)
            await self._outbox.close(end.code, end.content)

    def _loop_failed(self, error: Exception) -> _Ended:
        """The end of a session by an error of ours or of the engine; its first line is told."""
        if not isinstance(error, WorldlineError):
            logger.exception("session failed", extra={"fields": {"session_id": self.id}})
            error = WorldlineError(f"{type(error).__name__}: {error}")
        first_line = (str(error).splitlines() or [""])[0]
        return _Ended(LOOP_FAILED + first_line, error, code=INTERNAL)
