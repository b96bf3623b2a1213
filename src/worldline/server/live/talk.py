"""What one connection says, and what it is answered: every message read, checked and dealt with.

Every message has its effect, or an `error` that says why not, at once and in order. Nothing here
waits: what takes time happens in the room's own task.
"""

from __future__ import annotations

from typing import Final

import msgspec

from worldline.core.errors import (
    ConfigError,
    InvalidEventError,
    InvalidInitError,
    ProtocolError,
    SessionError,
    WorldlineError,
)
from worldline.core.live import VERSION
from worldline.core.live.client import (
    ClientMessage,
    Enter,
    Hello,
    Input,
    InputMessage,
    KeyFrame,
    Leave,
    Ping,
    Playhead,
    Rejoin,
    RtcOffer,
    Shown,
    Watch,
)
from worldline.core.live.codes import failure
from worldline.core.live.server import Pong, Ready
from worldline.core.messages import clip
from worldline.server.live.greeting import ready
from worldline.server.live.guest import Guest, ending
from worldline.server.live.host import RETRY_MS
from worldline.server.live.house import House
from worldline.server.services import Services

_DECODER: Final = msgspec.msgpack.Decoder(ClientMessage)
_MAX_TEXT: Final = 300


class _Head(msgspec.Struct):
    """What can be read of a message that cannot be used."""

    id: int


_HEAD: Final = msgspec.msgpack.Decoder(_Head)


class Talk:
    """The conversation of one connection, from its side of the house."""

    def __init__(self, guest: Guest, services: Services, house: House) -> None:
        self._guest = guest
        self._services = services
        self._config = services.config
        self._house = house
        self._ready: Ready | None = None

    def hear(self, data: bytes | None) -> None:
        """Deal with one message; None stands for a text frame. After its end nothing is heard."""
        if self._guest.over.done():
            return
        message: ClientMessage | None = None
        try:
            message = _decode(data)
            self._take(message)
        except WorldlineError as error:
            named = message.id if isinstance(message, InputMessage) else None
            self._refuse(error, id=_id_of(data) if message is None else named)

    def _take(self, message: ClientMessage) -> None:
        if isinstance(message, Ping):
            now_ms = self._services.clock.now() * 1000
            self._guest.send(Pong(at_ms=message.at_ms, server_ms=now_ms))
        elif isinstance(message, Leave):
            self._house.leave(self._guest)
        elif isinstance(message, Hello):
            self._greet(message)
        elif self._ready is None:
            raise InvalidInitError("this came first", expected="hello", got=_tag(message))
        elif isinstance(message, Enter | Rejoin | Watch):
            self._go_in(message)
        elif isinstance(message, Playhead | Shown | KeyFrame):
            self._report(message)
        elif isinstance(message, RtcOffer):
            self._connect(message)
        else:
            self._input(message)

    def _greet(self, hello: Hello) -> None:
        if self._ready is not None:
            raise ProtocolError("hello was said", expected="anything but hello")
        if hello.version != VERSION:
            raise InvalidInitError("another version", expected=VERSION, got=hello.version)
        self._ready = ready(self._services)
        self._guest.send(self._ready)

    def _go_in(self, message: Enter | Rejoin | Watch) -> None:
        if self._guest.room is not None:
            raise ProtocolError("there is a world", expected="leave first", got=_tag(message))
        self._guest.viewer.format = message.format
        if isinstance(message, Enter):
            self._house.enter(self._guest, message)
        elif isinstance(message, Rejoin):
            self._house.rejoin(self._guest, message.token)
        else:
            self._house.watch(self._guest, message.world)

    def _report(self, message: Playhead | Shown | KeyFrame) -> None:
        """Facts about this viewer; without a world they are about one that has ended."""
        room, viewer = self._guest.room, self._guest.viewer
        if room is None or room.world is None or room.broadcast is None:
            return
        if isinstance(message, KeyFrame):
            room.broadcast.key_frame(viewer)
        elif isinstance(message, Playhead):
            viewer.shown(message.frame)
            if room.holder == viewer.id:
                room.world.playhead(message, self._services.clock.now())
                if room.track is not None:
                    room.track.playhead(message)
        elif room.holder == viewer.id and room.track is not None:
            room.track.shown(message)

    def _connect(self, message: RtcOffer) -> None:
        room = self._guest.room
        if room is None or not room.is_open:
            raise SessionError("there is no world", expected="opened first")
        if room.peers is None:
            raise ConfigError("this world has no WebRTC")
        room.peers.offer(self._guest.viewer, message.sdp)

    def _input(self, message: Input) -> None:
        room = self._guest.room
        if room is None:
            raise SessionError("there is no world", expected="enter, rejoin or watch first")
        for answer in room.take(self._guest, message):
            self._guest.send(answer)

    def _refuse(self, error: WorldlineError, *, id: int | None) -> None:
        """Say no; who has no world yet may try only so often."""
        self._services.metrics.count_error(error.code)
        retry = RETRY_MS if error.retryable else msgspec.UNSET
        in_lobby = self._guest.room is None and not isinstance(error, SessionError)
        self._guest.refusals += in_lobby
        is_last = error.retryable or self._guest.refusals >= self._config.init_attempts
        if in_lobby and is_last:
            self._guest.end(ending(error, retry_after_ms=RETRY_MS if error.retryable else None))
        else:
            self._guest.send(failure(error, id=id, retry_after_ms=retry))


def _decode(data: bytes | None) -> ClientMessage:
    if data is None:
        raise ProtocolError("text frames are not read", expected="a binary message", got="text")
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        got = clip(str(error), _MAX_TEXT)
        raise InvalidEventError(
            "the message cannot be read", expected="worldline.v1", got=got
        ) from None


def _id_of(data: bytes | None) -> int | None:
    """The input id of a message that cannot be used, if it has a usable one."""
    try:
        number = _HEAD.decode(data or b"").id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return number if 0 < number < 2**32 else None


def _tag(message: ClientMessage) -> str:
    return str(type(message).__struct_config__.tag)
