"""One socket of `/v1/worlds/live`: sub-protocol, `hello`, then whatever its visitor says.

Five tasks, all gone when `serve` returns: the outbox and the viewer write, the reader reads and
deals with each message at once, the pulse notices silence, and a last one waits for the end. The
world lives in a room of the house and not here: a connection that breaks only leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Final, NamedTuple

from starlette.websockets import WebSocket

from worldline.core.errors import CapacityError, LateError, WorldlineError
from worldline.core.live import SUBPROTOCOL
from worldline.core.live.codes import NoticeCode
from worldline.core.live.server import Notice
from worldline.server.doors.clients import client_of
from worldline.server.doors.gate import keep_own_pulse
from worldline.server.live.guest import Guest, ending
from worldline.server.live.host import RETRY_MS
from worldline.server.live.house import FAREWELL_S, House
from worldline.server.live.keeper import keep
from worldline.server.live.talk import Talk
from worldline.server.live.viewer import Viewer
from worldline.server.logs import log
from worldline.server.outbox import Outbox, SocketClosed
from worldline.server.services import Services
from worldline.server.transport import SocketTransport
from worldline.server.waiting import stop, within

logger = logging.getLogger("worldline.server")

BEATS: Final = 3  # heartbeats without a word until a peer counts as gone
YIELD_EVERY: Final = 64  # messages read from one socket before the others get a turn
_SILENT: Final[dict[NoticeCode, str]] = {
    "init_timeout": "the socket closes unless a world is entered",
    "heartbeat": "the socket counts as gone unless something is said",
}


async def live(socket: WebSocket) -> None:
    """The endpoint `/v1/worlds/live`."""
    services: Services = socket.app.state.services
    house: House = socket.app.state.house
    if services.config.heartbeat_s:
        keep_own_pulse(socket.scope)
    offered = SUBPROTOCOL in socket.scope.get("subprotocols", ())
    await socket.accept(subprotocol=SUBPROTOCOL if offered else None)
    connection = Connection(socket, services, house)
    if not services.sockets.take(connection.id):
        limit = services.sockets.count
        error = CapacityError("too many sockets are open", expected=f"at most {limit}")
        connection.refuse(error, retry_after_ms=RETRY_MS)
        await connection.serve()
        return
    try:
        await connection.serve()
    finally:
        services.sockets.release(connection.id)


class Silence(NamedTuple):
    """At `at` a silent peer is warned, or given up at `ends`."""

    at: float
    code: NoticeCode
    ends: float


class Connection:
    """One socket. `refuse` before `serve` lets it say so and close."""

    def __init__(self, socket: WebSocket, services: Services, house: House) -> None:
        self._socket = socket
        self._services = services
        self._config = services.config
        self._clock = services.clock
        self._house = house
        self._outbox = Outbox(SocketTransport(socket), services.clock)
        self._viewer = Viewer(self._outbox, services.clock, id=secrets.token_urlsafe(9))
        self._guest = Guest(self._viewer, client_of(socket.scope).name, services.clock)
        self._talk = Talk(self._guest, services, house)
        self._heard = services.clock.now()

    @property
    def id(self) -> str:
        """The name of this connection's viewer."""
        return self._viewer.id

    def refuse(self, error: WorldlineError, *, retry_after_ms: int | None = None) -> None:
        """End with an error."""
        self._services.metrics.count_error(error.code)
        self._guest.end(ending(error, retry_after_ms=retry_after_ms))

    async def serve(self) -> None:
        """Run until the peer has left or was told goodbye; nothing of it stays behind."""
        self._house.welcome(self._guest)
        writer = asyncio.create_task(self._outbox.run())
        viewing = asyncio.create_task(self._viewer.run())
        reader = asyncio.create_task(self._read())
        pulse = asyncio.create_task(
            keep(self._clock, self._guest.moved, agenda=self._agenda, act=self._act)
        )
        over = self._guest.over
        try:
            await asyncio.wait({viewing, reader, over}, return_when=asyncio.FIRST_COMPLETED)
            self._note_crash(reader, viewing)
        finally:
            try:
                self._house.gone(self._guest)
                await stop(reader, pulse)
                if over.done() and not viewing.done():
                    await self._farewell()
            finally:
                over.cancel()
                try:
                    await stop(viewing, writer)
                finally:
                    self._house.goodbye(self._guest)

    async def _read(self) -> None:
        """Listen until the peer leaves."""
        count = 0
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            self._heard = self._clock.now()
            self._guest.client = client_of(self._socket.scope).name  # known once `hello` came
            self._talk.hear(message.get("bytes"))
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _note_crash(self, *tasks: asyncio.Task[None]) -> None:
        """An error of ours ends the connection, and is told and logged."""
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None and not isinstance(error, SocketClosed):
                logger.error("socket failed", exc_info=error)
                self.refuse(WorldlineError(f"{type(error).__name__}: {error}"))

    async def _farewell(self) -> None:
        """The last message and the close frame, to a peer that may read slowly."""
        message, code = self._guest.over.result()
        self._viewer.end()
        self._viewer.send(message)
        with suppress(TimeoutError, SocketClosed):
            await within(self._clock, FAREWELL_S, self._say_goodbye(code, message.code))
        log(logger, logging.INFO, "socket closed", viewer=self.id, code=int(code))

    async def _say_goodbye(self, code: int, reason: str) -> None:
        await self._viewer.flush()
        await self._outbox.close(code, reason)

    def _agenda(self) -> list[Silence]:
        """When silence matters: before there is a world, and at any time."""
        beat, limit = self._config.heartbeat_s, self._config.init_timeout_s
        dues: list[Silence] = []
        if beat:
            ends = self._heard + BEATS * beat
            dues += [Silence(ends - beat, "heartbeat", ends), Silence(ends, "heartbeat", ends)]
        if limit and self._guest.room is None:
            ends = self._guest.outside + limit  # who is sent back has the whole time again
            warn = ends - min(self._config.warn_s, limit / 2)
            dues += [Silence(warn, "init_timeout", ends), Silence(ends, "init_timeout", ends)]
        return dues

    def _act(self, due: Silence) -> None:
        if due.at < due.ends:
            left = round((due.ends - self._clock.now()) * 1000)
            self._guest.send(Notice(code=due.code, message=_SILENT[due.code], in_ms=max(0, left)))
        elif due.code == "init_timeout":
            limit = self._config.init_timeout_s
            self.refuse(LateError("no world was entered", expected=f"one within {limit:g} s"))
        else:
            limit = BEATS * self._config.heartbeat_s
            self.refuse(LateError("nothing was said", expected=f"a ping every {limit:g} s"))
