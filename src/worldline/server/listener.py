"""The reader of one socket: it never stops listening, and deals with each message at once.

Before the session every message must be an init; what is not is answered, and what cannot be used
as one is counted. From then on every message must be an event, which is folded into the inbox.
Nothing is kept of a message but its effect.
"""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket

from worldline.core.errors import (
    InvalidEventError,
    InvalidInitError,
    ProtocolError,
    WorldlineError,
)
from worldline.core.events import Event, Init, decode_message, script_from_init
from worldline.core.messages import INVALID_EVENT, INVALID_INIT
from worldline.server.answers import Answers, Ended
from worldline.server.inbox import Inbox
from worldline.server.waiting import AsyncClock, within

YIELD_EVERY = 64  # messages read from one socket before the others get a turn


class Listener:
    """Reads `socket` into `inbox`; hands over inits one at a time."""

    def __init__(
        self, socket: WebSocket, inbox: Inbox, *, answers: Answers, init_attempts: int
    ) -> None:
        self._socket = socket
        self._inbox = inbox
        self._answers = answers
        self._attempts_left = init_attempts
        self._inits: asyncio.Queue[Init | WorldlineError] = asyncio.Queue()
        self._init_taken = False  # an init is being checked, or was accepted

    async def read(self) -> None:
        """Listen until the peer leaves. Raises: SocketClosed."""
        count = 0
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            decoded = None
            try:
                decoded = _decode(message.get("bytes"))
                self._take(decoded)
            except WorldlineError as error:
                # Keys pressed while an init is being refused are no attempts at an init.
                await self._refuse(error, attempt=not isinstance(decoded, Event))
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def next_init(self, clock: AsyncClock, limit_s: float) -> Init:
        """The next init. Raises: Ended when none comes in time, or too many were refused."""
        try:
            init = await within(clock, limit_s, self._inits.get())
        except TimeoutError:
            late = InvalidInitError("no init arrived", expected=f"init within {limit_s:g} s")
            raise Ended(INVALID_INIT, late, code=late.close_code) from None
        if isinstance(init, WorldlineError):
            raise Ended("too many invalid requests", init, code=init.close_code, told=True)
        return init

    async def reject(self, error: WorldlineError) -> None:
        """The init cannot be used: forget it and what came after it, and let another one come."""
        self._inbox.start(None)
        self._init_taken = False
        await self._refuse(error)

    def _take(self, message: Init | Event) -> None:
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

    async def _refuse(self, error: WorldlineError, *, attempt: bool = True) -> None:
        """Answer a message that cannot be used; before the session an `attempt` is counted."""
        if type(error) is ProtocolError:  # unreadable: what it should have been depends on when
            kind = InvalidEventError if self._init_taken else InvalidInitError
            error = kind(error.message, expected=error.expected, got=error.got)
        if self._init_taken:
            await self._answers.error(INVALID_EVENT, error)
            return
        self._attempts_left -= attempt
        await self._answers.error(INVALID_INIT, error)
        if attempt and self._attempts_left == 0:
            self._inits.put_nowait(error)


def _decode(data: bytes | None) -> Init | Event:
    if data is None:
        raise ProtocolError("text frames are not read", expected="a binary message", got="text")
    return decode_message(data)
