"""One socket of the mainline endpoint, from accept to close.

Three tasks: the writer (outbox), the reader (listener), and the visit: init, seat, engine, generate
loop, and everything given back in reverse order. The socket ends when the visit or the reader does.

    init (checked, picture decoded) -> warm -> seat -> open -> generate ... -> close -> seat free
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket

from worldline.core.errors import CapacityError, InputError, ProtocolError, WorldlineError
from worldline.core.live.client import Enter
from worldline.core.messages import BUSY, COMPLETE
from worldline.runtime.protocol import OpenReply, OpenRequest
from worldline.server.answers import Answers, Ended
from worldline.server.doors.clients import client_of
from worldline.server.inbox import Inbox
from worldline.server.listener import Listener
from worldline.server.live.family import DeskFamily, Parent
from worldline.server.live.house import House
from worldline.server.logs import log
from worldline.server.outbox import Outbox, SocketClosed
from worldline.server.requests import LiveRequest, Playback, read_request, to_open
from worldline.server.services import Services
from worldline.server.session import LiveSession
from worldline.server.session_walk import SessionWalk
from worldline.server.transport import SocketTransport
from worldline.server.waiting import stop

logger = logging.getLogger("worldline.server")

NOT_READY = "the server is not ready"
NORMAL, TRY_LATER = 1000, 1013


async def realtime(socket: WebSocket) -> None:
    """The endpoint `/v1/realtime_video/generate`."""
    services: Services = socket.app.state.services
    await socket.accept()
    visitor = Visitor(socket, services, socket.app.state.house)
    if not services.sockets.take(visitor.id):
        await visitor.turn_away()
        return
    try:
        await visitor.serve()
    finally:
        services.sockets.release(visitor.id)


class Visitor:
    """One connection, which is one session."""

    def __init__(self, socket: WebSocket, services: Services, house: House) -> None:
        self.id = uuid.uuid4().hex
        self._house = house
        self._client = client_of(socket.scope).name
        self._services = services
        self._config = services.config
        self._inbox = Inbox(self._config.max_prompt_chars)
        self._outbox = Outbox(SocketTransport(socket), services.clock)
        self._answers = Answers(self._outbox, services.metrics, self.id)
        self._listener = Listener(
            socket, self._inbox, answers=self._answers, init_attempts=self._config.init_attempts
        )

    async def serve(self) -> None:
        """Run until the visit is over or the peer has left; nothing of either stays behind."""
        writer = asyncio.create_task(self._outbox.run())
        reader = asyncio.create_task(self._guard(self._listener.read()))
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
            await self._answers.end(Ended(BUSY, error, code=error.close_code))
        finally:
            await stop(writer)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of this socket; whatever ends it, the peer is told why."""
        try:
            await work
        except Ended as end:
            await self._answers.end(end)
        except SocketClosed:
            return
        except Exception as error:
            await self._answers.end(self._answers.loop_failed(error))

    async def _visit(self) -> None:
        while True:
            refusal = await self._sit(await self._next_request())
            if refusal is None:
                await self._outbox.close(NORMAL, COMPLETE)
                return
            await self._listener.reject(refusal)

    async def _next_request(self) -> LiveRequest:
        """The next usable init. Raises: Ended when none comes in time, or too many fail."""
        services, config = self._services, self._config
        while True:
            init = await self._listener.next_init(services.clock, config.init_timeout_s)
            try:
                return await read_request(
                    init, info=services.engine.info, config=config, pool=services.readers
                )
            except (InputError, ProtocolError) as error:
                await self._listener.reject(error)

    async def _wait_for_seat(self) -> None:
        services, config = self._services, self._config
        try:
            await services.readiness.wait(services.clock, config.warmup_wait_s)
        except CapacityError as error:
            raise Ended(NOT_READY, error, code=TRY_LATER) from None
        try:
            await services.seats.wait(self.id, services.clock, config.seat_wait_s)
        except CapacityError as error:
            raise Ended(BUSY, error, code=error.close_code) from None

    async def _sit(self, request: LiveRequest) -> InputError | None:
        """Wait for a seat and use it for one session; what is refused at opening is returned.

        Raises: Ended when there is no seat or the session fails, SocketClosed. The seat is free
        when this ends, and the engine has let go of the session before.
        """
        await self._wait_for_seat()
        end = "disconnected"
        try:
            try:
                walk, opened = await self._open(request)
            except InputError as error:
                end = "refused"
                return error
            await self._live(request.playback, opened, walk)
            end = "complete"
            return None
        except SocketClosed:
            raise
        except Exception as error:
            end = "failed"
            raise self._answers.loop_failed(error) from error
        finally:
            self._services.metrics.count_session(end)
            await self._stand_up()

    async def _open(self, request: LiveRequest) -> tuple[SessionWalk, OpenReply]:
        services = self._services

        async def again() -> OpenRequest:
            return await to_open(
                request, session_id=self.id, config=self._config, pool=services.readers
            )

        opening = await again()
        opened = await services.engine.open(opening)
        size = f"{opened.width}x{opened.height}"
        log(logger, logging.INFO, "session opened", session_id=self.id, size=size)
        enter = Enter(
            prompt=request.prompt,
            seed=request.seed,
            width=request.width,
            height=request.height,
            window=request.window,
            sink=request.sink,
        )
        parent = Parent(enter, self._client, request.picture)
        family = DeskFamily(self._house, lambda: parent)
        walk = SessionWalk(
            services, opening, opened, picture=request.picture, again=again, family=family
        )
        return walk, opened

    async def _live(self, playback: Playback, opened: OpenReply, walk: SessionWalk) -> None:
        session = LiveSession(
            self._services,
            playback,
            opened=opened,
            walk=walk,
            inbox=self._inbox,
            outbox=self._outbox,
        )
        self._services.walks.open(self.id, walk)
        try:
            await session.run()
        finally:
            self._services.walks.close(self.id)

    async def _stand_up(self) -> None:
        try:
            await self._services.engine.close(self.id)
        except WorldlineError as error:
            log(logger, logging.ERROR, "close failed", session_id=self.id, error=str(error))
        finally:
            self._services.seats.release(self.id)
            log(logger, logging.INFO, "session closed", session_id=self.id)
